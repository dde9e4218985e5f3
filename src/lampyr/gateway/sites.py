"""The sites there are: the one that serves, the one before it, previews, and candidates that are being prepared."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lampyr.gateway.candidate import Candidate
from lampyr.gateway.proxy import Proxy
from lampyr.gateway.site import Site
from lampyr.node.pool import Pool
from lampyr.runtime.channel import Message

# Functions that are imported at the same time ahead of any call: with all of them at once the first call would wait
# for everybody's import (5 s with 130 functions on two cores).
AT_ONCE = max(1, (os.cpu_count() or 1) - 1)

# Of a deployment, what only some may see of it, the site that serves, other ones, and whether functions go on with
# their old variables until they have been imported with the new ones.
Make = Callable[[Message, Message, Site | None, list[Site], bool], Site]


class Sites:
    """`make` builds a site; a pool that no site has any more is retired.

    `retiring` has the pools that still finish something, and which deployment they are of.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy, make: Make) -> None:
        self._loop = loop
        self._proxy = proxy
        self._make = make
        self._standby: Site | None = None
        self._candidates: dict[str, Candidate] = {}
        self._pools: dict[Pool, str] = {}
        self._cold: deque[Pool] = deque()  # whose function is yet to be imported
        self.retiring: dict[Pool, str] = {}

    @property
    def all(self) -> list[Site]:
        """Every site, the serving one first."""
        candidates = [one.site for one in self._candidates.values()]
        found = (self._proxy.site, *self._proxy.previews.values(), self._standby, *candidates)
        return [site for site in found if site is not None]

    @property
    def shown(self) -> list[Site]:
        """Those that requests reach, and the one before while something of it runs."""
        found = [site for site in (self._proxy.site, *self._proxy.previews.values()) if site is not None]
        if self._standby is not None and any(pool.instances for pool in self._standby.pools.values()):
            found.append(self._standby)
        return found

    def pools(self) -> Iterator[Pool]:
        """Every pool that may have something to do."""
        yield from self._pools
        yield from self.retiring

    def coming(self, pool: Pool) -> Site | None:
        """The site in which `pool` is to take the place of another."""
        return next((site for site in self.all if site.coming.get(pool.function.route) is pool), None)

    def settle(self, site: Site, pool: Pool) -> None:
        """A function has been imported with other secrets: it serves with them from now on, or not at all."""
        if pool.snapshot.state == "ready":
            site.take_over(pool)
        else:
            del site.coming[pool.function.route]
        self._sweep()

    # --- what control says

    def deploy(self, deployment: Message, private: Message) -> None:
        """Serve it now; what is cold is imported when called, or when it is its turn."""
        site = self._built(deployment, private, goes_on=True)
        self._proxy.switch(site)
        self._sweep()
        coming = sorted(site.coming.values(), key=lambda pool: not site.pools[pool.function.route].instances)
        self._cold = deque(one for one in (*coming, *site.pools.values()) if one.function.problem is None)
        for _ in range(AT_ONCE):
            self.warm_next()

    def prepare(
        self,
        deployment: Message,
        private: Message,
        patience_s: float | None,
        judged: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        """Build it beside what serves and have each of its functions prove its health."""
        self._forget(deployment["id"])
        site = self._built(deployment, private, goes_on=False)
        at_once = AT_ONCE if self._proxy.site is not None else AT_ONCE + 1  # nobody else wants a core yet
        self._candidates[site.id] = Candidate(self._loop, site, at_once, patience_s, judged)

    def switch(self, id: str) -> bool:
        """The candidate serves from now on, in one assignment; the one before finishes what runs and stands by."""
        candidate = self._candidates.pop(id, None)
        if candidate is None:
            return False
        candidate.forget()
        site, before = candidate.site, self._proxy.site
        self._proxy.previews.pop(id, None)
        self._proxy.switch(site)
        if before is not None and before.id != id:
            self._standby = before
        elif self._standby is not None and self._standby.id == id:
            self._standby = None
        self._sweep()
        kept = site.all_pools
        for pool in before.all_pools if before is not None else ():
            if pool not in kept and not pool.retired:
                pool.stand_by()
        for pool in site.pools.values():
            pool.take_over()
        return True

    def show(self, id: str) -> bool:
        """The candidate is a preview from now on."""
        candidate = self._candidates.pop(id, None)
        if candidate is None:
            return False
        candidate.forget()
        self._proxy.previews[id] = candidate.site
        self._sweep()
        return True

    def preview(self, deployment: Message, private: Message) -> None:
        """Show it as a preview that has been shown before."""
        self._proxy.previews[deployment["id"]] = self._built(deployment, private, goes_on=False)
        self._sweep()

    def drop(self, id: str) -> None:
        """A preview is wanted no more."""
        self._proxy.previews.pop(id, None)
        self._sweep()

    def forget(self, id: str) -> None:
        """Nobody will switch to this candidate."""
        self._forget(id)
        self._sweep()

    def forget_candidates(self) -> None:
        """Nobody is there who would switch to them."""
        for id in list(self._candidates):
            self._forget(id)
        self._sweep()

    # --- pools

    def warm_next(self) -> None:
        """Import the next function that nobody has called yet; who is called does not wait for its turn."""
        while self._cold:
            pool = self._cold.popleft()
            if not pool.retired and pool.warm():
                return

    def _built(self, deployment: Message, private: Message, *, goes_on: bool) -> Site:
        site = self._make(deployment, private, self._proxy.site, self.all[1:], goes_on)
        self._pools.update((pool, site.id) for pool in site.all_pools if pool not in self._pools)
        return site

    def _forget(self, id: str) -> None:
        candidate = self._candidates.pop(id, None)
        if candidate is not None:
            candidate.forget()

    def _sweep(self) -> None:
        """Retire the pools that no site has any more."""
        kept = {pool for site in self.all for pool in site.all_pools}
        for pool in [pool for pool in self._pools if pool not in kept]:
            self.retiring[pool] = self._pools.pop(pool)
            pool.retire(partial(self._retired, pool))

    def _retired(self, pool: Pool) -> None:
        self.retiring.pop(pool, None)
