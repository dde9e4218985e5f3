"""How quickly a function answers: whether a request may wait behind another instead of waking one more process."""

from __future__ import annotations

# Below this a request is answered sooner behind another one than by a process that has to be woken or started first.
QUICK_S = 0.002
# How many requests may be with an instance that serves one at a time: the one it serves and those that wait in its
# socket. With 16 clients on one core, each request in a process of its own costs twice the CPU time: every switch
# to another process finds cold caches.
MOST_AHEAD = 8
# After a request that had waited in vain, so many answers have to be quick again.
DISTRUST = 200
# An instance that makes no progress for this long is blocked: what waits in its socket is taken back.
PATIENCE_S = 0.01


class Pace:
    """What is known of one function's answers; `quick` is the advice. A function nobody knows is not quick."""

    __slots__ = ("_distrust", "_mean_s", "quick")

    def __init__(self) -> None:
        self._mean_s = QUICK_S * 4
        self._distrust = 0
        self.quick = False

    def took(self, duration_s: float) -> None:
        """An instance was at one request for this long, in seconds."""
        self._mean_s += (duration_s - self._mean_s) / 8
        if self._distrust:
            self._distrust -= 1
        self.quick = self._mean_s < QUICK_S and not self._distrust

    def wrong(self) -> None:
        """A request waited behind one that was not quick at all."""
        self._distrust = DISTRUST
        self.quick = False
