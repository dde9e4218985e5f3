"""Whether a process of ours still answers: one that is stopped, or hangs, is as good as dead and does not end."""

from __future__ import annotations

from collections.abc import Callable

from lampyr.node import processes

ASK_EVERY_S = 2.0
# Nobody answers for so long who does nothing else meanwhile; who works may take longer, as in looking through files.
SILENT_S, WORKING_S = 5.0, 60.0


class Pulse:
    """Asks the process `pid` by `ask()`, from `now_s` on; times are seconds of one clock."""

    def __init__(self, pid: int, ask: Callable[[], None], now_s: float) -> None:
        self._pid = pid
        self._ask = ask
        self._next_s = now_s + ASK_EVERY_S
        self._asked_s: float | None = None
        self._worked_s = now_s
        self._used = 0

    def heard(self, now_s: float) -> None:
        """It has answered."""
        self._asked_s, self._next_s = None, now_s + ASK_EVERY_S

    def look(self, now_s: float) -> bool:
        """Whether it may go on; asks where it is time to."""
        if now_s < self._next_s:
            return True
        self._next_s = now_s + SILENT_S / 5
        used = processes.cpu_ticks(self._pid)
        if used != self._used or self._asked_s is None:
            self._used, self._worked_s = used, now_s
        if self._asked_s is None:
            self._asked_s = now_s
            self._ask()
        return now_s - self._worked_s < SILENT_S and now_s - self._asked_s < WORKING_S

    @property
    def next_s(self) -> float:
        """When to look again."""
        return self._next_s
