"""The process that is forked ahead, for a function that starts instances again and again.

Parked, it is in its room and as ready as can be without the user's code (runtime/parked.py), of which nothing has run
in it; it is no instance yet. The next start is then a message instead of a fork: 1.5 ms instead of 6.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING

from lampyr.node.alarm import Alarm
from lampyr.node.processes import memory_is_short
from lampyr.node.touched import pages
from lampyr.runtime import channel

if TYPE_CHECKING:
    from lampyr.node.instance import Instance
    from lampyr.node.pool import Pool

# How many starts have to be known before another is expected. What starts within a lull of another is part of that.
KNOWN = 3
# The next is waited for so many times as long as the longest pause between them.
PATIENCE = 2.0
LEAST_S, MOST_S = 1.0, 600.0
# Nothing of the function has run for so long when a process is parked: nobody waits for the core that this takes.
LULL_S = 0.1
# What takes longer hangs, in something of the user's packages that we have set off; then it is not tried again.
READY_WITHIN_S = 10.0


def expected_until_s(starts_s: Sequence[float]) -> float:
    """Until when the next start is worth waiting for, by the latest ones, eldest first; 0 where nobody can know."""
    if len(starts_s) < KNOWN:
        return 0.0
    pauses_s = [after_s - before_s for before_s, after_s in pairwise(starts_s)]
    return starts_s[-1] + min(max(PATIENCE * max(pauses_s), LEAST_S), MOST_S)


class Parking:
    """`process` is the one that is parked, or on its way to that."""

    __slots__ = ("_alarm", "_barred", "_pages", "_pool", "_starts_s", "_stirred_s", "process")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._starts_s: deque[float] = deque(maxlen=KNOWN)
        self._stirred_s = 0.0
        self._alarm = Alarm(pool.loop, self._look)
        self._barred = False  # one was lost on its way
        self._pages: bytes | None = None  # that instances write to, once somebody has looked
        self.process: Instance | None = None

    @property
    def parked(self) -> bool:
        """Whether one is there and ready."""
        return self.process is not None and self.process.state == "parked"

    def holds(self, process: Instance) -> bool:
        """Whether `process` is the one: it is no instance, whatever it says."""
        return process is self.process

    def take(self) -> Instance | None:
        """Have the parked process, where there is one, be the next instance."""
        if not self.parked:
            return None
        process, self.process = self.process, None
        return process

    def started(self) -> None:
        """An instance has got ready."""
        now_s = monotonic()
        if self._starts_s and now_s - self._starts_s[-1] < LULL_S:
            self._starts_s.pop()
        self._starts_s.append(now_s)
        self.stirred()

    def stirred(self) -> None:
        """An instance has come or gone."""
        self._stirred_s = monotonic()
        if len(self._starts_s) == KNOWN:
            self._alarm.by(self._stirred_s + LULL_S)

    def served(self, instance: Instance) -> None:
        """An instance has served its first call, and has nothing else to do."""
        if self._pages is None and len(self._starts_s) == KNOWN:
            self._pages = b""
            self._pool.loop.run_in_executor(None, self._record, instance.host_pid())

    def _record(self, pid: int) -> None:
        self._pages = pages(pid)

    def _look(self) -> None:
        now_s, until_s = monotonic(), expected_until_s(self._starts_s)
        if now_s > until_s:
            self.end()
        elif self.process is not None:
            self._mind(self.process, now_s, until_s)
        elif (quiet_s := self._quiet_s(now_s)) < LULL_S:
            self._alarm.by(now_s + LULL_S - quiet_s)
        elif self._pool.snapshot.state == "ready" and not self._barred and not memory_is_short():
            self._park(now_s)

    def _quiet_s(self, now_s: float) -> float:
        """How long nothing of the function has run."""
        instances = self._pool.instances.values()
        if self._pool.waiting or any(one.state != "idle" for one in instances):
            return 0.0
        return now_s - max([self._stirred_s, *(one.since_s for one in instances)])

    def _mind(self, process: Instance, now_s: float, until_s: float) -> None:
        if process.state == "parked":
            self._alarm.by(until_s + LULL_S)
        elif now_s < (due_s := process.forked_s + READY_WITHIN_S):
            self._alarm.by(due_s)
        else:
            self.died()

    def _park(self, now_s: float) -> None:
        try:
            parcel = channel.parcel(self._pages or b"")
            try:
                self.process = self._pool.births.order({"parked": True}, parcel)
            finally:
                os.close(parcel)
        except OSError:  # the system has nothing left for it; who needs an instance will be told
            return
        self._alarm.by(now_s + LULL_S)

    def ready(self, process: Instance, *, prompt: bool) -> bool:
        """It says that it is parked; False where nobody wants that of it."""
        if not self.holds(process) or process.state != "starting":
            return False
        process.step("park")
        process.prompt = prompt
        return True

    def died(self) -> None:
        """It is over, before it was wanted."""
        self._barred = self._barred or not self.parked
        self.end()

    def forget(self) -> None:
        """What is known of starts says nothing any more: an instance has died, another deployment has taken over."""
        self._starts_s.clear()
        self.end()

    def end(self) -> bool:
        """Let it go: its snapshot is gone, nobody has come for long, or somebody needs what it has. Whether it was."""
        self._alarm.cancel()
        self._pages = None  # those of another snapshot lie elsewhere
        process, self.process = self.process, None
        if process is None:
            return False
        process.step("exit")
        process.clear_away()
        self._pool.snapshot.fence.release(process.number)
        return True
