"""How a process ended, for whoever asks, perhaps before it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# How long after its end the status of a process may be news.
STATUS_TIMEOUT_S = 2.0


class Exit:
    """The exit status of one process, which its parent says a little after the end, if that lives."""

    __slots__ = ("_asking", "_loop", "status")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asking: list[Callable[[int | None], None]] = []
        self.status: int | None = None

    def ask(self, tell: Callable[[int | None], None]) -> None:
        """Call `tell` with it, or with None where nobody has said it in time."""
        if self.status is not None:
            tell(self.status)
            return
        if not self._asking:
            self._loop.call_later(STATUS_TIMEOUT_S, self.said, None)
        self._asking.append(tell)

    def said(self, status: int | None) -> None:
        """This is how it ended; None: nobody will say."""
        self.status = status
        asking, self._asking = self._asking, []
        for tell in asking:
            tell(status)
