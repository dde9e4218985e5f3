"""How many instances each function has: said whenever that changes, and once a minute while there are any.

So whoever keeps it needs no end of a process that was killed: a minute of which nobody said anything had none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MINUTE_S = 60


class Tracks(dict[str, int]):
    """By route: deployments follow one another. `told(route, most)`: so many there are, or were until a moment ago."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.told: Callable[[str, int], None] = lambda route, most: None

    def change(self, route: str, by: int) -> None:
        """One more, or one fewer."""
        before = self.get(route, 0)
        self[route] = before + by
        self.told(route, max(before, before + by))
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        """Until the next minute of the clock begins."""
        self._timer = self._loop.call_later(MINUTE_S - time.time() % MINUTE_S + 0.01, self._say)

    def _say(self) -> None:
        self._timer = None
        there = [(route, count) for route, count in self.items() if count]
        for route, count in there:
            self.told(route, count)
        if there:
            self._wait()
