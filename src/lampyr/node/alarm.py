"""One timer that goes off at the earliest of the times it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic

# The loop's clock has whole milliseconds: a look that comes too early would only have to be repeated.
CLOCK_S = 0.001


class Alarm:
    """Calls `ring` once; after that it may be asked again."""

    __slots__ = ("_due_s", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = inf

    def by(self, due_s: float) -> None:
        """Go off at `due_s` (time.monotonic()), if not before."""
        if due_s >= self._due_s:
            return
        self.cancel()
        self._due_s = due_s
        left_s = due_s - monotonic()
        self._timer = self._loop.call_later(max(left_s, CLOCK_S) if left_s > 0 else 0.0, self._now)

    def _now(self) -> None:
        self._timer, self._due_s = None, inf
        self._ring()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due_s = None, inf
