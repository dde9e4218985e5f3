"""What the calls of one instance use: CPU time from the kernel's clock of its process, memory, and shares of both.

Nothing here is said by the process itself. What it does while it serves nobody belongs to nobody; nor does what its own
child processes use.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Final

from lampyr.node.processes import wants_core

# How old the figure for memory may be, the second for calls that took longer than that: reading it takes 15 µs, and a
# hundred streams may end at once.
MEMORY_EVERY_S: Final = 0.5
MEMORY_WORTH_S: Final = 0.02
# How often the clock is looked at, at most, where several calls share it.
LOOK_EVERY_S: Final = 0.000_1
# Final, as what every call needs here: compiled code then finds it without looking it up.
_clock_ns: Final = time.clock_gettime_ns
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)

# Where a call stood when it was last looked at: nanoseconds of CPU time, seconds.
Mark = tuple[int, float]
NOWHERE: Mark = (0, 0.0)


class Meter:
    """For an instance that serves one request at a time: what its clock went on by belongs to that request, exactly.

    `memory_gb` is what it may use, in GiB. `answers`: so many responses were read in one go, of requests that had
    waited in its socket; what it used since it was last looked at is shared equally among them. `pid` is 0 until it is
    known.
    """

    __slots__ = (
        "_clock",
        "_kept_ns",
        "_last_ns",
        "_memory_gb",
        "_memory_s",
        "_peak_kib",
        "_share_ns",
        "answers",
        "pid",
    )

    def __init__(self, memory_gb: float) -> None:
        self._memory_gb = memory_gb
        self.pid = 0
        self._clock = 0
        self._last_ns = 0
        self._kept_ns = 0
        self._memory_s = 0.0
        self._peak_kib = 0
        self._share_ns = -1
        self.answers = 0

    def watch(self, pid: int) -> None:
        """The process exists. The clock's number is made of its pid (the kernel's CPUCLOCK_SCHED)."""
        if sys.platform == "linux" and pid > 0:
            self.pid = pid
            self._clock = ~pid << 3 | 2

    def _used_ns(self) -> int:
        """What the process has used since this was last asked."""
        try:
            now_ns = _clock_ns(self._clock) if self._clock else max(self._kept_ns, self._last_ns)
        except OSError:  # it has ended
            self._clock = 0
            now_ns = max(self._kept_ns, self._last_ns)
        used_ns, self._last_ns = now_ns - self._last_ns, now_ns
        return used_ns

    def note(self) -> None:
        """Keep what its clock says: when its parent has waited for a process that has ended, nobody can read it."""
        self._kept_ns = self.clock_ns() or self._kept_ns

    def begin(self, running: int, now_s: float) -> Mark:
        """A call begins where `running` others run."""
        if not running:
            self._used_ns()
        return NOWHERE

    def spent(self, mark: Mark, running: int, begun_s: float, now_s: float) -> tuple[int, float]:
        """CPU time in ns and GiB-seconds of one of `running` calls, since `mark`."""
        if not self.answers:
            return self._used_ns(), self._memory_gb * (now_s - begun_s)
        if self._share_ns < 0:
            self._share_ns = self._used_ns() // self.answers
        share_ns = self._share_ns
        self.answers -= 1
        if not self.answers:
            self._share_ns = -1
        return share_ns, self._memory_gb * (now_s - begun_s)

    def mark(self) -> Mark:
        """Where a call stands now."""
        return NOWHERE

    def clock_ns(self) -> int:
        """What the process has used in all; 0 where nobody says."""
        try:
            return _clock_ns(self._clock) if self._clock else 0
        except OSError:
            return 0

    def starves(self, used_s: float, since_ns: int = -1) -> bool:
        """Whether the process waits for a core and has had less than `used_s` of one since it was last looked at.

        Or since its clock stood at `since_ns`, where that is given.
        """
        from_ns = self._last_ns if since_ns < 0 else since_ns
        try:
            used_ns = _clock_ns(self._clock) - from_ns if self._clock else 0
        except OSError:
            return False
        return used_ns < used_s * 1e9 and wants_core(self.pid)

    def peak_kib(self, begun_s: float, now_s: float) -> int:
        """The most memory the process has had so far, for a call that began at `begun_s`."""
        age_s = now_s - self._memory_s
        if self.pid and (age_s > MEMORY_EVERY_S or (age_s > MEMORY_WORTH_S and now_s - begun_s > MEMORY_WORTH_S)):
            self._memory_s = now_s
            self._look_at_memory()
        return self._peak_kib

    def _look_at_memory(self) -> None:
        try:
            found = _PEAK.search(Path(f"/proc/{self.pid}/status").read_text())
        except OSError:
            found = None
        self._peak_kib = int(found[1]) if found else self._peak_kib


class SharedMeter(Meter):
    """For an instance that serves several requests at a time: what is used is divided among those that run just then.

    It counts for a call that had been there from the beginning; another one gets the difference since it came.
    """

    __slots__ = ("_at_s", "_looked_s", "_virtual_ns", "_virtual_s")

    def __init__(self, memory_gb: float) -> None:
        super().__init__(memory_gb)
        self._virtual_ns = 0
        self._virtual_s = 0.0
        self._at_s = 0.0
        self._looked_s = 0.0

    def begin(self, running: int, now_s: float) -> Mark:
        if running:
            self._virtual_s += (now_s - self._at_s) / running
        else:
            self._used_ns()
        self._at_s = now_s
        return self._virtual_ns, self._virtual_s

    def spent(self, mark: Mark, running: int, begun_s: float, now_s: float) -> tuple[int, float]:
        if now_s - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now_s
            self._virtual_ns += self._used_ns() // (running or 1)
        self._virtual_s += (now_s - self._at_s) / (running or 1)
        self._at_s = now_s
        return self._virtual_ns - mark[0], self._memory_gb * (self._virtual_s - mark[1])

    def mark(self) -> Mark:
        return self._virtual_ns, self._virtual_s
