"""How much one function may say, and how much of the gateway's time that may take (no I/O, time is a parameter)."""

from __future__ import annotations

# A page of a book is 2 KB; a function that writes more than a hundred a second is not read by anybody.
BYTES_PER_S = 256 * 1024
BURST_BYTES = 2 * 1024 * 1024
# Once it has said too much, it is not heard for so long; one mark stands for all of that.
SHUT_S = 1.0
# But for its stack at a deadline, which comes behind what a pipe holds.
STACK_BYTES = 128 * 1024
# What a line costs besides its length.
LINE_BYTES = 64
# What reading and keeping the lines of one function may take of the gateway's time: a burst, then a share.
BURST_S = 0.05
SHARE = 0.1
LEAST_PAUSE_S, MOST_PAUSE_S = 0.01, 1.0


class Patience:
    """The time that all output of one function has taken: whoever says too much is not listened to for a while."""

    __slots__ = ("_then_s", "_used_s")

    def __init__(self) -> None:
        self._used_s = self._then_s = 0.0

    def pause_s(self, began_s: float, ended_s: float) -> float:
        """How long to wait after a read that took from then to then; mostly 0."""
        self._used_s = max(self._used_s - (began_s - self._then_s) * SHARE, 0.0) + ended_s - began_s
        self._then_s = began_s
        if self._used_s < BURST_S:
            return 0.0
        return min(max((self._used_s - BURST_S) / SHARE, LEAST_PAUSE_S), MOST_PAUSE_S)


class Flow:
    """`missing` counts the lines that were not let through since it was asked last."""

    __slots__ = ("_left", "_of_stack", "_shut_until_s", "_then_s", "missing")

    def __init__(self) -> None:
        self._left = float(BURST_BYTES)
        self._then_s = 0.0
        self._shut_until_s = 0.0
        self._of_stack = 0
        self.missing = 0

    def expect_stack(self) -> None:
        """A stack comes, which is to be read however much has been said."""
        self._of_stack = STACK_BYTES

    def lets_through(self, size: int, now_s: float, *, stderr: bool = False) -> bool:
        """Whether a line of `size` bytes may be kept. Stacks come on `stderr`."""
        if stderr and self._of_stack > 0:
            self._of_stack -= size + LINE_BYTES
            return True
        if now_s < self._shut_until_s:
            self.missing += 1
            return False
        left = min(self._left + (now_s - self._then_s) * BYTES_PER_S, BURST_BYTES) if self._then_s else self._left
        self._then_s = now_s
        self._left = left = left - size - LINE_BYTES
        if left >= 0:
            return True
        self._left = 0.0
        self._shut_until_s = now_s + SHUT_S
        self.missing += 1
        return False
