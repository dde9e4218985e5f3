"""The loop guard: how deep a request is in a chain of functions that call one another over this gateway (SPEC 3).

Whether a function has made a connection, and which, the kernel knows (node/ends.py); from outside this machine nobody
is asked about. The first request on a connection has the depth its mark says (runtime/outgoing.py). Clients of other
languages make no mark, and a connection that is kept may be used by another request of the same instance later: then
it counts as made by the one that is least deep. So a fan of calls is never taken for a chain, and a chain gets longer
than it may only by as many connections as an instance had open already.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from lampyr.core import depth
from lampyr.node.ends import End, Ends, holder

if TYPE_CHECKING:
    from lampyr.gateway.exchange import Exchange
    from lampyr.node.caller import Caller
    from lampyr.node.instance import Instance
    from lampyr.node.pool import Pool
    from lampyr.node.snapshots import Base

_NAME = depth.HEADER.encode()


class Maker:
    """Who has made a connection; which instance it was is found out when that matters.

    `pools` are the functions that it may be of; `surely` says that it is of one of them.
    """

    __slots__ = ("_end", "_instance", "_surely", "_used", "pools")

    def __init__(self, pools: list[Pool], end: End, *, surely: bool) -> None:
        self._surely = surely
        self.pools = pools
        self._end = end
        self._instance: Instance | None = None
        self._used = False

    def depth(self) -> tuple[int, Caller | None]:
        """That of the next request on the connection, 0 where no function has made it; and whose call it is likely."""
        if not self.pools:
            return 0, None
        marked = depth.marked(self._end.service)
        used, self._used = self._used, True
        if marked is not None and not used:
            return marked + 1, None
        if self._instance is None:
            busy = [one for pool in self.pools for one in pool.instances.values() if one.running]
            self._instance = holder(busy, self._end.inode)
            if self._instance is None:
                return self._unfound(busy, used) if marked is None else (marked + 1, None)
        return _depth_in(self._instance, used=used)

    def _unfound(self, busy: list[Instance], used: bool) -> tuple[int, Caller | None]:
        """Where the kernel does not say who says HELLO, no process has a number in its first milliseconds."""
        new = [one for one in busy if not one.host_pid()]
        if not (self._surely or new):
            self.pools = []  # somebody else of the same user; the next request need not ask again
        if not (self._surely and new):
            return int(self._surely), None
        return min((_depth_in(one, used=used) for one in new), key=itemgetter(0))


def _depth_in(instance: Instance, *, used: bool) -> tuple[int, Caller | None]:
    """One more than that of the request in `instance` that is likely to be calling."""
    calling = list(instance.running.values())
    if not calling:
        return 1, None
    if instance.one_at_a_time:
        return calling[0].depth + 1, None
    if used:
        return min(one.depth for one in calling) + 1, None
    # Programs in other languages, without a mark: who waits for an answer to a call has made one already.
    likely = min(calling, key=lambda one: (one.inner, one.depth))
    return likely.depth + 1, likely


class Loops:
    """Tells the depth of requests. `base` knows which function has which user id."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._ends = Ends()

    def depth(self, exchange: Exchange) -> int:
        """How many functions have called one another to make this request. It is in its headers from then on."""
        sent = _NAME in exchange.fields
        connection = exchange.connection
        if not sent and not connection.inside:
            return 0
        deep = max(
            (depth.told(value.decode("latin-1")) for name, value in exchange.headers if name == _NAME), default=0
        )
        if connection.inside:
            maker = connection.maker
            if maker is None:
                maker = connection.maker = self._maker(exchange)
            found, exchange.parent = maker.depth()
            deep = max(deep, found)
            connection.inside = bool(maker.pools)
        if deep or sent:
            _tell(exchange, deep)
        return deep

    def _maker(self, exchange: Exchange) -> Maker:
        end = self._ends.find(*exchange.ends)
        if end is None or not end.inode:  # somebody else's network, or who has closed it already
            return _NOBODY
        pools = self._base.pools_of(end.user)
        return Maker(pools or self._base.alike(end.user), end, surely=bool(pools))


_NOBODY = Maker([], End(-1, 0, 0), surely=False)


def _tell(exchange: Exchange, deep: int) -> None:
    """Let the handler see the depth among its headers, and nothing there that a client has made up."""
    headers = [(name, value) for name, value in exchange.headers if name != _NAME]
    if deep:
        headers.append((_NAME, b"%d" % deep))
    exchange.headers = headers
    exchange.fields = b"\0".join(part for header in headers for part in header)
