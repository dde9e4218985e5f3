"""A request body that is still on its way: reading it lets the gateway send more."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from lampyr.errors import ClientDisconnect
from lampyr.runtime import wire
from lampyr.runtime.request import Body

if TYPE_CHECKING:
    from lampyr.runtime.invocation import Host


class ArrivingBody(Body):
    """Pieces are given by the frames of one stream and taken by the handler; what is taken earns credit."""

    __slots__ = ("_ended", "_instance", "_lost", "_pieces", "_stream", "_unwanted", "_waiter")

    def __init__(self, instance: Host, stream_id: int, first: bytes) -> None:
        super().__init__(None)
        self._instance = instance
        self._stream = stream_id
        self._pieces: deque[bytes] = deque([first] if first else [])
        self._ended = False
        self._lost = False
        self._unwanted = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, piece: bytes) -> None:
        """A BODY frame has come."""
        if self._unwanted:
            self._earn(piece)
        else:
            self._pieces.append(piece)
            self._wake()

    def feed_end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._wake()

    def lose(self) -> None:
        """The client has left: what has not come will not come."""
        self._lost = True
        self._wake()

    def discard(self) -> None:
        """Nobody will read it (GET and HEAD): let it pass."""
        self._unwanted = True
        while self._pieces:
            self._earn(self._pieces.popleft())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _earn(self, piece: bytes) -> None:
        self._instance.send(wire.frame(self._stream, wire.BODY_CREDIT, len(piece).to_bytes(4, "big")))

    async def next(self) -> bytes:
        loop = self._instance.loop
        if asyncio.get_running_loop() is not loop:
            # A sync handler's thread that runs a loop of its own: asyncio.run(request.json()).
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._next(), loop))
        return await self._next()

    async def _next(self) -> bytes:
        while not self._pieces:
            if self._ended:
                return b""
            if self._lost:
                raise ClientDisconnect("the client left before its request body was complete")
            self._waiter = self._instance.loop.create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._earn(piece)
        return piece

    async def all(self) -> bytes:
        pieces = []
        while piece := await self.next():
            pieces.append(piece)
        return b"".join(pieces)
