"""The instances of one function: leased to calls, started when calls wait, ended when idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from math import inf
from time import monotonic

from lampyr.core import endings
from lampyr.core.autoscale import BUSY_AFTER_S, Bounds, Load, pause_s, scale, stood_by
from lampyr.node.ahead import Ahead
from lampyr.node.alarm import Alarm
from lampyr.node.births import Births
from lampyr.node.caller import Caller
from lampyr.node.health import Health, Verdict
from lampyr.node.instance import OUT_OF_MEMORY, Instance
from lampyr.node.logs import Sink
from lampyr.node.parking import Parking
from lampyr.node.scarcity import Scarcity
from lampyr.node.snapshots import Base, Snapshot
from lampyr.node.waiting import Waiting
from lampyr.node.watch import Watch
from lampyr.runtime.channel import Message
from lampyr.types import Function

# A process that has not said hello by then hangs in a hook of the user's.
START_TIMEOUT_S = 10.0
# How long a retiring instance may take to leave once nothing runs in it.
RETIRE_GRACE_S = 5.0
# What has died is made again ahead of any call, but not in a loop.
RESTORE_AFTER_S = 1.0


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
        self._user: int = place["user"]
        self._base = base
        base.add(self, self._user)
        self._told = told
        self.snapshot = Snapshot(
            base,
            {**spec, **place},
            env,
            lambda stream: sink(stream, None),
            self._snapshot_changed,
            lambda: self.parking.process is not None,
            self.max_instances,
        )
        self.instances: dict[int, Instance] = {}
        self.open: list[Instance] = []  # those with room for a call, longest unused first
        self.waiting = Waiting()
        self.retired = False
        self.health: Health | None = None  # while somebody asks for it
        self.births = Births(self, place["tmp"], self._user, sink)
        self.ahead = Ahead(self)
        self.watch = Watch(self)
        self.parking = Parking(self)
        self._alarm = Alarm(self.loop, self._scale)  # when to ask again how many instances there should be
        self._failures = 0  # instances in a row that served nothing
        self._paused_until_s = 0.0
        self._scarcity = Scarcity(base, function.route)
        self._restoring: asyncio.TimerHandle | None = None
        self._emptied: Callable[[], None] | None = None

    # --- calls

    def lease(self, caller: Caller) -> None:
        """Give `caller` an instance now or as soon as there is one, or refuse it."""
        if self.ahead.pace.quick and self.ahead.take(caller):
            return
        if self.open:
            self._begin(self.open[-1], caller)
        elif self.waiting.add(caller) and len(self.instances) < self.max_instances:
            self._scale()

    def _begin(self, instance: Instance, caller: Caller) -> None:
        instance.step("lease")
        if len(instance.running) + 1 >= self.concurrency:
            self.open.remove(instance) if self.open[-1] is not instance else self.open.pop()
            if not self.open:
                self._alarm.by(monotonic() + BUSY_AFTER_S)
        if self.births.talks and not instance.running:
            instance.read_log()  # what the call before wrote is its own
        if not self.watch.on:
            self.watch.begin()
        self.ahead.latest = instance
        caller.begin(instance)

    def abandon(self, caller: Caller, *, overdue: bool = False) -> None:
        """The caller does not want to wait any longer; `overdue`, because its time is over."""
        if caller in self.waiting:
            if overdue:
                self._say_what_it_waited_for(caller)
            self.waiting.remove(caller)
            self._check_emptied()

    def _say_what_it_waited_for(self, caller: Caller) -> None:
        """No handler has begun, so no stack of one tells why its caller got a 504."""
        if self.snapshot.state == "importing":
            self.tell("warning: its time was over while the function was being imported", caller.id)
            self.snapshot.print_stack()
        elif len(self.instances) >= self.max_instances:
            text = f"its time was over while it waited: max_instances is {self.max_instances}, and all were busy"
            self.tell(f"warning: {text}", caller.id)

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
            if now_s < self._scarcity.until_s:
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

    def start(self) -> Instance:
        """Start an instance, the parked one or from the snapshot, which is ready. Raises OSError."""
        instance = self.parking.take()
        if instance is not None:
            instance.wake()
        else:
            instance = self.births.order({})
        self.instances[instance.number] = instance
        self._base.tracks.change(self.function.route, 1)
        self.loop.call_later(START_TIMEOUT_S, self._check_started, instance)
        return instance

    def forked(self, instance: Instance, pidfd: int, lacked: str) -> None:
        """The snapshot has made its process, or could not."""
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
        self.waiting.refuse(code, self.snapshot.failure)

    def _scarce(self, lacked: str, instance: Instance | None = None) -> None:
        """The system lacks what an instance takes: who would wait for that alone may come again."""
        if instance is None:
            self._scarcity.met(lacked, here=True)
        else:
            self._scarcity.met(*self.snapshot.fence.met_at_fork(lacked) or (lacked,), here=False)
            instance.reason = "it could not be started"
            self.died(instance)
        self._spare_the_system()

    def _spare_the_system(self) -> None:
        self._alarm.by(self._scarcity.until_s)
        if not self.instances and self._scarcity.lasts:
            self.waiting.refuse("FUNCTION_THROTTLED")

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
        unread = instance.clear_away()
        if instance in self.open:
            self.open.remove(instance)
        del self.instances[instance.number]
        self._base.tracks.change(self.function.route, -1)
        if instance.killed or instance.reason is None:
            self.parking.forget()  # what had to be ended, or died, does not say that more will be wanted
        else:
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
            self.waiting.charge("FUNCTION_OUT_OF_MEMORY" if why is OUT_OF_MEMORY else "FUNCTION_CRASHED")
        self._scale()
        self._check_emptied()

    def exited(self, instance: Instance, status: int) -> None:
        """The snapshot has waited for it."""
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

    def tell(self, text: str, id: str | None = None) -> None:
        """Say something about this function in the log, or about an invocation of it."""
        self._base.tell(text, self.function.route, id)

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
        self._paused_until_s = inf  # it starts nothing more but for calls that wait already
        self.stand_by()
        self._check_emptied()

    def _check_emptied(self) -> None:
        if self.retired and not self.instances and not self.waiting:
            self.snapshot.close()
            self._alarm.cancel()
            if self._emptied is not None:
                self._base.remove(self, self._user)
                emptied, self._emptied = self._emptied, None
                emptied()
