"""How quickly a function answers: whether a request may wait behind another instead of waking one more process."""

from __future__ import annotations

# A handler that answers within this time, without ever waiting, is quick: behind it a request is answered sooner than
# by a process that has to be woken or started first. The gateway's own part of a request is a fifth of this, so one
# process of such handlers keeps up with it, and other cores lose nothing.
QUICK_S = 0.000_25
# How many requests may be with an instance that serves one at a time: the one it serves and those that wait in its
# socket. With 64 clients on one core and each request in a process of its own, a request costs 118 us of CPU time
# (every switch to another process finds cold caches); with 8 at an instance 58, with 16 48, with 32 39.
MOST_AHEAD = 32
# So many answers have to be quick before requests wait for one another...
TRUST_AFTER = 16
# ...and so many after one that had waited in vain.
TRUST_AGAIN_AFTER = 200
# An instance that makes no progress for this long is blocked: what waits in its socket is taken back.
PATIENCE_S = 0.01


class Pace:
    """What is known of one function's answers; `quick` is the advice. A function nobody knows is not quick."""

    __slots__ = ("_wanted",)

    def __init__(self) -> None:
        self._wanted = TRUST_AFTER

    @property
    def quick(self) -> bool:
        """Whether a request may wait behind one that has just begun."""
        return not self._wanted

    def answered(self, quick: bool) -> None:
        """An instance has answered, or begun to."""
        if not quick:
            self._wanted = max(self._wanted, TRUST_AFTER)
        elif self._wanted:
            self._wanted -= 1

    def wrong(self) -> None:
        """A request waited behind one that was not quick at all."""
        self._wanted = TRUST_AGAIN_AFTER
