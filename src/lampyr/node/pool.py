"""The instances of one function: leased to calls, started when calls wait, ended when idle."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from math import inf
from time import monotonic

from lampyr.core import endings
from lampyr.core.autoscale import BUSY_AFTER_S, Bounds, Load, pause_s, scale, stood_by
from lampyr.core.flow import Patience
from lampyr.node.ahead import Ahead
from lampyr.node.alarm import Alarm
from lampyr.node.caller import Caller
from lampyr.node.health import Health, Verdict
from lampyr.node.instance import OUT_OF_MEMORY, Instance
from lampyr.node.link import Link
from lampyr.node.logs import LogPipe, Sink, stdout_and_stderr
from lampyr.node.parking import Parking
from lampyr.node.processes import send_signal
from lampyr.node.snapshots import MAKE_ROOM, Base, Snapshot
from lampyr.node.watch import Watch
from lampyr.runtime import channel
from lampyr.runtime.channel import Message
from lampyr.runtime.marks import says_whose
from lampyr.types import Function

# Calls that wait for an instance, per function; one more is refused with 503 instead of waiting for nothing.
MAX_WAITING = 1000
# A process that has not said hello by then hangs in a hook of the user's.
START_TIMEOUT_S = 10.0
# How long a retiring instance may take to leave once nothing runs in it.
RETIRE_GRACE_S = 5.0
# What has died is made again ahead of any call, but not in a loop.
RESTORE_AFTER_S = 1.0
# Where the system has nothing left for an instance: when it is tried again, and how often that is said.
SCARCE_PAUSE_S = 1.0
SCARCE_TOLD_S = 10.0
# What is parked has ended by then.
ROOM_AFTER_S = 0.02

_numbers = count(1)


class Pool:
    """Leases instances of `function`. `sink(stream, instance)` gives a taker of log lines."""

    def __init__(
        self,
        function: Function,
        base: Base,
        spec: Message,
        env: dict[str, str],
        tmp: str,
        sink: Callable[[str, Instance | None], Sink],
        told: Callable[[Pool], None],
    ) -> None:
        self.function = function
        self.loop = base.loop
        self.concurrency = function.settings.concurrency
        self.max_instances = function.settings.max_instances
        least, idle_s = function.settings.min_instances, function.settings.idle_timeout
        self._bounds = Bounds(self.concurrency, least, self.max_instances, idle_s)
        place = base.place(function.route, tmp)
        self._tmp: str = place["tmp"]
        self._user: int = place["user"]
        self._base = base
        base.add(self, self._user)
        self._sink = sink
        self._patience = Patience()  # with what its instances write
        self._told = told
        self.snapshot = Snapshot(
            base,
            {**spec, **place},
            env,
            lambda stream: sink(stream, None),
            self._snapshot_changed,
            self.max_instances,
        )
        self.instances: dict[int, Instance] = {}
        self.open: list[Instance] = []  # those with room for a call, longest unused first
        self.waiting: deque[Caller] = deque()
        self.retired = False
        self.health: Health | None = None  # while somebody asks for it
        self.talks = False  # its instances write lines that do not say whose they are
        self.ahead = Ahead(self)
        self.watch = Watch(self)
        self.parking = Parking(self)
        self._alarm = Alarm(self.loop, self._scale)  # when to ask again how many instances there should be
        self._failures = 0  # instances in a row that served nothing
        self._paused_until_s = 0.0
        self._scarce_until_s = 0.0
        self._scarce_told_s = -inf
        self._restoring: asyncio.TimerHandle | None = None
        self._emptied: Callable[[], None] | None = None

    # --- calls

    def lease(self, caller: Caller) -> None:
        """Give `caller` an instance now or as soon as there is one, or refuse it."""
        if self.ahead.pace.quick and self.ahead.take(caller):
            return
        if self.open:
            self._begin(self.open[-1], caller)
        elif len(self.waiting) >= MAX_WAITING:
            caller.refused("FUNCTION_THROTTLED")
        else:
            self.waiting.append(caller)
            if len(self.instances) < self.max_instances:
                self._scale()

    def _begin(self, instance: Instance, caller: Caller) -> None:
        instance.step("lease")
        if len(instance.running) + 1 >= self.concurrency:
            self.open.remove(instance) if self.open[-1] is not instance else self.open.pop()
            if not self.open:
                self._alarm.by(monotonic() + BUSY_AFTER_S)
        if self.talks and not instance.running:
            instance.read_log()  # what the call before wrote is its own
        if not self.watch.on:
            self.watch.begin()
        self.ahead.latest = instance
        caller.begin(instance)

    def abandon(self, caller: Caller) -> None:
        """The caller does not want to wait any longer."""
        try:
            self.waiting.remove(caller)
        except ValueError:
            return
        self._check_emptied()

    def freed(self, instance: Instance) -> None:
        """A call of `instance` is over."""
        now_s = monotonic()
        was_full = len(instance.running) + 1 == self.concurrency
        if was_full and self.open:
            self._note_spare(now_s, now_s - instance.since_s)
        if self.concurrency == 1 or not instance.running:
            instance.since_s = now_s
        if not instance.running:
            instance.step("free")
            if instance.served == 1:
                self.parking.served(instance)
        if instance.state not in ("idle", "busy"):
            if not instance.running:
                self._leave_soon(instance)
            return
        if instance.due and not instance.running:
            self.watch.weigh(instance)
            if instance.worn:
                self.recycle(instance, instance.worn)
                return
        if was_full and not instance.shunned:
            self.open.append(instance)
        if self.waiting:
            self._serve_waiting()
        elif instance.state == "idle":
            self._rest(instance)

    def _rest(self, instance: Instance) -> None:
        """Nobody calls for `instance`: it ends in a while, or now if another deployment has taken over."""
        if self.retired:
            self._retire(instance, "replaced")
        else:
            self._alarm.by(instance.since_s + self._bounds.idle_timeout_s)

    def _note_spare(self, now_s: float, took_s: float) -> None:
        spare = self.open[0]
        if spare.state == "idle" and stood_by(took_s, len(self.open)):
            spare.since_s = now_s

    def _serve_waiting(self) -> None:
        while self.waiting and self.open:
            self._begin(self.open[-1], self.waiting.popleft())

    # --- how many

    def _scale(self) -> None:
        """Do what core/autoscale says, now and when it says to look again."""
        now_s = monotonic()
        plan = scale(now_s, self._bounds, self._load())
        for _ in range(plan.start):
            if now_s < self._scarce_until_s:
                self._spare_the_system()
                break
            self.snapshot.wanted()
            if self.snapshot.state == "failed":
                self._refuse_unimportable()
            if self.snapshot.state != "ready":
                return  # `_snapshot_changed` goes on
            try:
                self.start()
            except OSError as error:
                self._scarce(str(error))
                break
        if plan.end:
            self._end_idle(plan.end)
        if plan.look_s is not None:
            self._alarm.by(plan.look_s)

    def _load(self) -> Load:
        states = self.instances.values()
        return Load(
            waiting=len(self.waiting),
            instances=len(self.instances),
            starting_s=[one.forked_s for one in states if one.state == "starting"],
            full_s=[one.since_s for one in states if one.state == "busy" and len(one.running) >= self.concurrency],
            room=len(self.open),
            leaving=sum(one.state == "retiring" for one in states),
            idle_s=sorted(one.since_s for one in self.open if one.state == "idle"),
            paused_until_s=self._paused_until_s,
        )

    # --- starting

    def warm(self) -> bool:
        """Import the function, and start `min_instances`, before anybody waits. Whether that has begun just now."""
        absent = self.snapshot.state == "absent"
        self.snapshot.wanted()
        if self.snapshot.state == "ready":
            self._scale()
        return absent

    def prove(self, told: Callable[[Verdict], None]) -> None:
        """Import the function and have its snapshot serve a health fork, before anybody calls."""
        self.health = Health(self, told)
        self.health.look()

    def quiet_s(self, now_s: float, since_s: float) -> float:
        """How long nothing of the function has run, as far as it is known to have been quiet `since_s`."""
        if self.waiting or any(one.state != "idle" for one in self.instances.values()):
            return 0.0
        return now_s - max([since_s, *(one.since_s for one in self.instances.values())])

    def start(self) -> Instance:
        """Start an instance, the parked one or from the snapshot, which is ready. Raises OSError as `_fork` does."""
        instance = self.parking.take()
        if instance is not None:
            instance.wake()
        else:
            instance = self._fork({})
        self.instances[instance.number] = instance
        self._base.tracks.change(self.function.route, 1)
        self.loop.call_later(START_TIMEOUT_S, self._check_started, instance)
        return instance

    def park(self, pages: bytes) -> Instance | None:
        """Fork one that nobody needs yet, which is to have these pages. Raises OSError as `_fork` does."""
        if self.snapshot.state != "ready" or self.retired:
            return None
        parcel = channel.parcel(pages)
        try:
            return self._fork({"parked": True}, parcel)
        finally:
            os.close(parcel)

    def _fork(self, order: Message, *more: int) -> Instance:
        """Raises OSError where the system lacks what it takes."""
        number = next(_numbers)
        link = Link(self.loop, one_at_a_time=self.concurrency == 1)
        pipes: list[LogPipe] = []
        tmp = os.path.join(self._tmp, f"{number}.{os.getpid()}")  # a dead gateway may have left some
        instance = Instance(self, number, link, pipes, tmp)
        forked, exited = partial(self._forked, instance), partial(self._exited, instance)
        try:
            pipes += stdout_and_stderr(self.loop, partial(self._heard, instance), self._user, self._patience)
            fds = (link.theirs(), *(pipe.writer for pipe in pipes), *more)
            sent = self.snapshot.fork({"tmp": tmp, **order}, fds, forked, exited)
        except OSError:
            instance.close()
            raise
        link.handed_over()
        for pipe in pipes:
            pipe.handed_over()
        if not sent:
            self.loop.call_soon(self.ended, instance)
        return instance

    def _forked(self, instance: Instance, pidfd: int, lacked: str) -> None:
        if pidfd < 0 and self.parking.holds(instance):
            self.parking.end()
            return
        if pidfd < 0 and lacked and instance.state != "ended":
            self._scarce(lacked, instance)
            return
        if pidfd < 0:
            self.died(instance)
            return
        if instance.state != "ended":
            self.snapshot.fence.admit(instance.number, pidfd)
        instance.forked(pidfd)

    def _heard(self, instance: Instance, stream: str) -> Sink:
        sink = self._sink(stream, instance)

        def heard(line: bytes, ended: bool) -> None:
            self.talks = self.talks or not says_whose(line)
            sink(line, ended)

        return heard

    def _check_started(self, instance: Instance) -> None:
        if instance.state == "starting":
            instance.kill("it did not become ready in time")

    def hello(self, instance: Instance) -> None:
        """A new instance is ready."""
        if instance.state == "starting":
            instance.since_s = monotonic()
            instance.init_ms = (instance.since_s - instance.forked_s) * 1000
        instance.step("hello")
        if instance.state != "idle":
            return
        if self.health is not None and self.health.takes(instance):
            self._retire(instance, "healthy")
            return
        self.parking.started()
        self.open.append(instance)
        self._serve_waiting()
        if instance.state == "idle":
            self._rest(instance)
        self._scale()

    def _snapshot_changed(self) -> None:
        if self.snapshot.state == "failed":
            self._refuse_unimportable()
        elif self.snapshot.state == "ready":
            self._scale()
        else:
            self.parking.end()
            for instance in [one for one in self.instances.values() if one.pidfd < 0]:
                self.died(instance)  # with its snapshot, before anybody could watch it
            self._restore_soon()
        self._told(self)
        if self.health is not None:
            self.health.look()
        self._check_emptied()

    def _restore_soon(self) -> None:
        if self._restoring is None and not self.retired and not self.snapshot.let:
            self._restoring = self.loop.call_later(RESTORE_AFTER_S, self._restore)

    def _restore(self) -> None:
        self._restoring = None
        if not self.retired:
            self.warm()

    def _refuse_unimportable(self) -> None:
        code = "FUNCTION_THROTTLED" if self.snapshot.scarce else "FUNCTION_INVOCATION_FAILED"
        self._refuse_waiting(code, self.snapshot.failure)

    def _scarce(self, lacked: str, instance: Instance | None = None) -> None:
        """The system lacks what an instance takes: who would wait for that alone may come again.

        Where something is parked, that goes first, and then it is tried again.
        """
        now_s = monotonic()
        if self._base.end_parked():
            if instance is not None:
                instance.reason = "it could not be started"
                self.died(instance)
            self._alarm.by(now_s + ROOM_AFTER_S)
            return
        self._scarce_until_s = now_s + SCARCE_PAUSE_S
        if now_s - self._scarce_told_s > SCARCE_TOLD_S:
            self._scarce_told_s = now_s
            self.tell(f"error: no instance can be started: {lacked}\nhint: {MAKE_ROOM}")
        if instance is not None:
            instance.reason = "it could not be started"
            self.died(instance)
        self._spare_the_system()

    def _spare_the_system(self) -> None:
        self._alarm.by(self._scarce_until_s)
        if not self.instances:
            self._refuse_waiting("FUNCTION_THROTTLED")

    def _refuse_waiting(self, code: str, failure: dict[str, object] | None = None) -> None:
        waiting, self.waiting = self.waiting, deque()
        for caller in waiting:
            caller.refused(code, failure)

    # --- ending

    def died(self, instance: Instance) -> None:
        """The process is gone. Whoever tells of that may be heard before the answers that it has still given."""
        instance.meter.note()
        if instance in self.open:
            self.open.remove(instance)
        if instance.state in ("idle", "busy"):
            instance.step("retire")  # it gets no more calls meanwhile
        if instance.state == "retiring":
            instance.read_rest()
        self.ended(instance)

    def ended(self, instance: Instance) -> None:
        """The socket of `instance` has closed: the process is dead or as good as dead."""
        if instance.state == "ended":
            return
        instance.meter.note()
        if self.parking.holds(instance):
            self.parking.died()
            return
        failed_start = instance.state == "starting"
        instance.step("exit")
        self._count_failure(instance)
        unread = self._clear_away(instance)
        if instance in self.open:
            self.open.remove(instance)
        del self.instances[instance.number]
        self._base.tracks.change(self.function.route, -1)
        self.parking.stirred()
        why = instance.why()
        self.snapshot.fence.release(instance.number)
        if instance.reason is None and not instance.running:
            instance.exit.ask(self._tell_end)
        if self.health is not None:
            self.health.ended(instance)
        for caller in list(instance.running.values()):
            caller.lost(why)
        instance.running.clear()
        for caller in unread:
            caller.returned()
        if failed_start and self.waiting and not self.retired and instance.reason is None:
            self._charge("FUNCTION_OUT_OF_MEMORY" if why is OUT_OF_MEMORY else "FUNCTION_CRASHED")
        self._scale()
        self._check_emptied()

    def discard(self, process: Instance) -> None:
        """What was parked is dead, or nobody needs it."""
        process.step("exit")
        self._clear_away(process)
        self.snapshot.fence.release(process.number)

    def _clear_away(self, instance: Instance) -> list[Caller]:
        """Let go of all it had; returns whose requests it has not read."""
        # A process that closed its socket and lives on would serve nobody.
        if instance.pidfd >= 0:
            send_signal(instance.pidfd)
        unread = instance.never_read()
        instance.close()
        self.loop.run_in_executor(None, lambda: shutil.rmtree(instance.tmp, ignore_errors=True))
        return unread

    def _exited(self, instance: Instance, status: int) -> None:
        instance.exit.said(status)
        self.died(instance)

    def _tell_end(self, status: int | None) -> None:
        """A process has ended by itself while it served nobody: no call will tell of that."""
        if status:
            self.tell(f"error: a process that served no request {endings.told(status)}")

    def _count_failure(self, instance: Instance) -> None:
        """Instances that die of themselves before they have served anything are not started over and over."""
        if instance.served:
            self._failures = 0
        elif instance.reason is None:
            self._failures += 1
            self._paused_until_s = max(self._paused_until_s, monotonic() + pause_s(self._failures))

    def _charge(self, code: str) -> None:
        """One call pays for one failed start, so that a function that cannot start ends its queue and does not spin.

        Each sees one failure that it does not pay for: somebody else may have killed that process.
        """
        spared = next((caller for caller in self.waiting if not caller.spared), None)
        if spared is not None:
            spared.spared = True
        else:
            self.waiting.popleft().refused(code)

    def _end_idle(self, count: int) -> None:
        idle = sorted((one for one in self.open if one.state == "idle"), key=lambda instance: instance.since_s)
        for instance in idle[:count]:
            self._retire(instance, "idle")

    def _retire(self, instance: Instance, reason: str) -> None:
        if instance in self.open:
            self.open.remove(instance)
        instance.retire(reason)
        if not instance.running:
            self._leave_soon(instance)

    def _leave_soon(self, instance: Instance) -> None:
        self.loop.call_later(RETIRE_GRACE_S, self._check_left, instance)

    def _check_left(self, instance: Instance) -> None:
        if instance.state == "retiring" and not instance.running:
            instance.kill("it did not leave when it was told to")

    def recycle(self, instance: Instance, reason: str) -> None:
        """Let `instance` finish what runs and take nothing more."""
        if instance.state in ("idle", "busy"):
            self._retire(instance, reason)
            self._scale()

    def shun(self, instance: Instance) -> None:
        """Give `instance` no more calls until it is trusted as often: its loop may not turn."""
        instance.shunned += 1
        if instance in self.open:
            self.open.remove(instance)

    def trust(self, instance: Instance) -> None:
        """It turns again."""
        instance.shunned -= 1
        if instance.shunned or instance.state not in ("idle", "busy"):
            return
        if len(instance.running) < self.concurrency:
            self.open.append(instance)
            self._serve_waiting()
            if instance.state == "idle":
                self._rest(instance)

    def tell(self, text: str) -> None:
        """Say something about this function in the log."""
        self._base.tell(text, self.function.route)

    def stand_by(self) -> None:
        """Another deployment has taken over, and this one may again: its snapshot stays, what runs may finish."""
        self.parking.forget()
        self._bounds = replace(self._bounds, min_instances=0)
        if not self.waiting:
            for instance in list(self.instances.values()):
                self._retire(instance, "replaced")

    def take_over(self) -> None:
        """Its deployment has taken over."""
        self._bounds = replace(self._bounds, min_instances=self.function.settings.min_instances)
        if self.snapshot.state == "ready":
            self._scale()

    def retire(self, emptied: Callable[[], None]) -> None:
        """Another deployment has taken over: what runs may finish; `emptied` is called when nothing is left."""
        self.retired = True
        self._emptied = emptied
        self.parking.forget()
        self._bounds = replace(self._bounds, min_instances=0)
        self._paused_until_s = inf  # it starts nothing more but for calls that wait already
        if not self.waiting:
            for instance in list(self.instances.values()):
                self._retire(instance, "replaced")
        self._check_emptied()

    def _check_emptied(self) -> None:
        if self.retired and not self.instances and not self.waiting:
            self.snapshot.close()
            self._alarm.cancel()
            if self._emptied is not None:
                self._base.remove(self, self._user)
                emptied, self._emptied = self._emptied, None
                emptied()
