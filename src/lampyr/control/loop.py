"""What control waits for: descriptors, and for each of them who is told when there is something to read."""

from __future__ import annotations

import select
from collections.abc import Callable


class Loop:
    """A descriptor has to be forgotten before it is closed: its number may be another one's then."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._told: dict[int, Callable[[], None]] = {}

    def hear(self, fd: int, told: Callable[[], None]) -> None:
        """From now on."""
        self._told[fd] = told
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Nobody is told of it any more."""
        del self._told[fd]
        self._poll.unregister(fd)

    def turn(self, timeout_ms: float | None) -> bool:
        """Wait, and tell those for whom there is something; False where the time was over first."""
        ready = [(fd, self._told[fd]) for fd, _ in self._poll.poll(timeout_ms)]
        for fd, told in ready:
            if self._told.get(fd) is told:  # what one has read may have been the end of another
                told()
        return bool(ready)
