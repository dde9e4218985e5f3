"""All open connections: how many there may be, how long they may take, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lampyr.gateway.http import Connection

HEAD_TIMEOUT_S = 15.0
BODY_TIMEOUT_S = 60.0
IDLE_TIMEOUT_S = 75.0
# A client that does not read what was written to it, not a byte.
WRITE_TIMEOUT_S = 60.0
# A client that was answered before it had sent everything may go on sending so long, if it never pauses longer than
# the first, so that it comes to see the answer (nginx has the same two, lingering_timeout and lingering_time).
LINGER_TIMEOUT_S = 5.0
LINGER_S = 30.0
SWEEP_S = 0.5


class Connections:
    """The registry of a front door. `limit`: how many connections there may be; one more is answered with 503."""

    def __init__(
        self,
        limit: int = 10_000,
        *,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        body_timeout_s: float = BODY_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        linger_timeout_s: float = LINGER_TIMEOUT_S,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self.limit = limit
        self.head_timeout_s = head_timeout_s
        self.body_timeout_s = body_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.write_timeout_s = write_timeout_s
        self.linger_timeout_s = linger_timeout_s
        self.open: set[Connection] = set()
        self.lingering: set[Connection] = set()  # those of `open` that were answered for the last time
        # Method, path, status, start and id of a request that nobody was asked to serve: for a log.
        self.refused: Callable[[str, str, int, float, str], None] = lambda *_: None
        self.draining = False
        self.date = b""  # a whole line, for the response heads of this second
        self.header_names: set[bytes] = set()  # of responses, found to be good; bounded
        self._sweep_s = sweep_s
        self._sweeping = False

    def add(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Note a new connection."""
        self.open.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self._sweep(loop)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.open.discard(connection)
        self.lingering.discard(connection)

    @property
    def full(self) -> bool:
        """Whether there are more connections than there may be."""
        return len(self.open) - len(self.lingering) > self.limit

    @property
    def overrun(self) -> bool:
        """Whether not even a refusal can be afforded: a refused client lingers, and costs as much as any other."""
        return len(self.lingering) > self.limit

    def drain(self) -> None:
        """Let what runs finish; every response from now on ends its connection."""
        self.draining = True
        for connection in list(self.open):
            connection.drain()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all connections instead of several for each request."""
        if not self.open:
            self._sweeping = False
            return
        loop.call_later(self._sweep_s, self._sweep, loop)
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        now = monotonic()
        for connection in list(self.open):
            if now >= connection.due_s or connection.watched:
                connection.look(now)
