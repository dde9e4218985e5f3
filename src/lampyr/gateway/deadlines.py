"""The deadlines of calls that may all take equally long: they come due in the order in which they came."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from lampyr.node.alarm import CLOCK_S


class Dated(Protocol):
    """What has a deadline: a call."""

    def expire(self) -> None: ...


class Deadlines:
    """Of one function's calls; `limit_s` None is no limit.

    One timer serves them all: a timer of its own costs each call 3 to 4 µs, much of it in cold memory (measured).
    """

    __slots__ = ("_due_s", "_loop", "_timer", "limit_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_s: float | None) -> None:
        self._loop = loop
        self.limit_s = limit_s
        self._due_s: dict[Dated, float] = {}  # the eldest first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Dated) -> None:
        """It begins now, and is told to `expire` after the limit."""
        if self.limit_s is not None:
            self._due_s[call] = monotonic() + self.limit_s
            if self._timer is None:
                self._timer = self._loop.call_later(self.limit_s + CLOCK_S, self._expire)

    def drop(self, call: Dated) -> None:
        """It has no deadline any more."""
        self._due_s.pop(call, None)

    def _expire(self) -> None:
        self._timer = None
        now_s = monotonic()
        try:
            for call in [call for call, due_s in self._due_s.items() if due_s <= now_s]:
                if self._due_s.pop(call, None) is not None:  # the end of one may have been that of another
                    call.expire()
        finally:  # whatever one of them comes to, the others have theirs
            for due_s in self._due_s.values():
                self._timer = self._loop.call_later(max(due_s - now_s, 0.0) + CLOCK_S, self._expire)
                break
