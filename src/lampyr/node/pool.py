"""The instances of one function: leased to calls, started when calls wait, ended when idle."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections import deque
from collections.abc import Callable
from itertools import count
from time import monotonic

from lampyr.node.instance import Caller, Instance
from lampyr.node.logs import LogPipe, Sink
from lampyr.node.snapshots import Base, Snapshot
from lampyr.runtime.channel import Message
from lampyr.types import Function

# Calls that wait for an instance, per function; one more is refused with 503 instead of waiting for nothing.
MAX_WAITING = 1000
# A process that has not said hello by then hangs in a hook of the user's.
START_TIMEOUT_S = 10.0
# How long a retiring instance may take to leave once nothing runs in it.
RETIRE_GRACE_S = 5.0

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
        self._idle_timeout_s = function.settings.idle_timeout
        self._tmp = tmp
        self._sink = sink
        self._told = told
        self.snapshot = Snapshot(base, spec, env, lambda stream: sink(stream, None), self._snapshot_changed)
        self.instances: dict[int, Instance] = {}
        self.open: list[Instance] = []  # those with room for a call, longest unused first
        self.waiting: deque[Caller] = deque()
        self.retired = False
        self._starting = 0
        self._unforked = 0  # instances wanted while the snapshot was not ready
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: Callable[[], None] | None = None

    # --- calls

    def lease(self, caller: Caller) -> None:
        """Give `caller` an instance now or as soon as there is one, or refuse it."""
        if self.open:
            self._begin(self.open[-1], caller)
        elif len(self.waiting) >= MAX_WAITING:
            caller.refused("FUNCTION_THROTTLED")
        else:
            self.waiting.append(caller)
            self._start_enough()

    def _begin(self, instance: Instance, caller: Caller) -> None:
        instance.step("lease")
        if len(instance.running) + 1 >= self.concurrency:
            self.open.remove(instance) if self.open[-1] is not instance else self.open.pop()
        caller.begin(instance)

    def abandon(self, caller: Caller) -> None:
        """The caller does not want to wait any longer."""
        try:
            self.waiting.remove(caller)
        except ValueError:
            pass

    def freed(self, instance: Instance) -> None:
        """A call of `instance` is over."""
        if not instance.running:
            instance.step("free")
            instance.idle_since = self.loop.time()
        if instance.state not in ("idle", "busy"):
            return
        if len(instance.running) + 1 == self.concurrency:
            self.open.append(instance)
        if self.waiting:
            self._serve_waiting()
        elif instance.state == "idle" and self._sweep is None:
            self._sweep_at(instance.idle_since + self._idle_timeout_s)

    def _serve_waiting(self) -> None:
        while self.waiting and self.open:
            self._begin(self.open[-1], self.waiting.popleft())

    # --- starting

    def _start_enough(self) -> None:
        """As many instances as the waiting calls need, within `max_instances`."""
        while len(self.waiting) > self._starting * self.concurrency and len(self.instances) < self.max_instances:
            self.snapshot.wanted()
            if self.snapshot.state == "failed":
                self._refuse_waiting("FUNCTION_INVOCATION_FAILED", self.snapshot.failure)
                return
            if self.snapshot.state != "ready":
                return  # `_snapshot_changed` goes on
            self._start()

    def warm(self) -> None:
        """Import the function, and start `min_instances`, before anybody waits."""
        self.snapshot.wanted()
        if self.snapshot.state == "ready" and not self.retired:
            while len(self.instances) < self.function.settings.min_instances:
                self._start()

    def _start(self) -> None:
        number = next(_numbers)
        ours, theirs = socket.socketpair()
        pipes: list[LogPipe] = []
        tmp = os.path.join(self._tmp, f"{number}")
        instance = Instance(self, number, ours, pipes, tmp)
        pipes += [LogPipe(self.loop, self._sink(stream, instance)) for stream in ("stdout", "stderr")]
        self.instances[number] = instance
        self._starting += 1

        def forked(pid: int, pidfd: int) -> None:
            instance.pid, instance.pidfd = pid, pidfd
            self.snapshot.exits[pid] = lambda status: self._exited(instance, status)
            if instance.state == "ended":
                os.close(pidfd)

        fds = (theirs.fileno(), *(pipe.writer for pipe in pipes))
        sent = self.snapshot.fork({"tmp": tmp}, fds, forked)
        theirs.close()
        for pipe in pipes:
            pipe.handed_over()
        self.loop.call_later(START_TIMEOUT_S, self._check_started, instance)
        if not sent:
            self.loop.call_soon(self.ended, instance)

    def _check_started(self, instance: Instance) -> None:
        if instance.state == "starting":
            instance.kill("it did not become ready in time")

    def hello(self, instance: Instance) -> None:
        """A new instance is ready."""
        if instance.state == "starting":
            self._starting -= 1
            instance.init_ms = (monotonic() - instance.forked_s) * 1000
            instance.idle_since = self.loop.time()
        instance.step("hello")
        if instance.state != "idle":
            return
        self.open.append(instance)
        if self.waiting:
            self._serve_waiting()
        elif self._sweep is None:
            self._sweep_at(instance.idle_since + self._idle_timeout_s)

    def _snapshot_changed(self) -> None:
        if self.snapshot.state == "failed":
            self._refuse_waiting("FUNCTION_INVOCATION_FAILED", self.snapshot.failure)
        elif self.snapshot.state == "ready":
            self.warm()
            self._start_enough()
        self._told(self)

    def _refuse_waiting(self, code: str, failure: dict[str, object] | None = None) -> None:
        waiting, self.waiting = self.waiting, deque()
        for caller in waiting:
            caller.refused(code, failure)

    # --- ending

    def ended(self, instance: Instance) -> None:
        """The socket of `instance` has closed: the process is dead or as good as dead."""
        if instance.state == "ended":
            return
        failed_start = instance.state == "starting"
        if failed_start:
            self._starting -= 1
        instance.step("exit")
        # A process that closed its socket and lives on would serve nobody.
        if instance.pidfd >= 0:
            try:
                signal.pidfd_send_signal(instance.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        instance.close()
        if instance in self.open:
            self.open.remove(instance)
        del self.instances[instance.number]
        self.loop.run_in_executor(None, lambda: shutil.rmtree(instance.tmp, ignore_errors=True))
        why = instance.reason or "crashed"
        for caller in list(instance.running.values()):
            caller.lost(why)
        instance.running.clear()
        if failed_start and self.waiting and not self.retired and instance.reason is None:
            # One call pays for one failed start, so that a function that cannot start ends its queue and does not spin.
            self.waiting.popleft().refused("FUNCTION_CRASHED")
        if self.waiting:
            self._start_enough()
        self._check_emptied()

    def _exited(self, instance: Instance, status: int) -> None:
        instance.exit_status = status
        self.ended(instance)

    def _sweep_at(self, when: float) -> None:
        self._sweep = self.loop.call_at(when, self._end_idle)

    def _end_idle(self) -> None:
        """End the instances that have been idle for `idle_timeout`, keeping `min_instances`."""
        self._sweep = None
        now = self.loop.time()
        idle = sorted((one for one in self.open if one.state == "idle"), key=lambda instance: instance.idle_since)
        spare = len(self.instances) - self.function.settings.min_instances
        for instance in idle:
            due = instance.idle_since + self._idle_timeout_s
            if spare <= 0:
                return
            if due > now + 0.001:
                self._sweep_at(due)
                return
            self._retire(instance, "idle")
            spare -= 1

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

    def retire(self, emptied: Callable[[], None]) -> None:
        """Another deployment has taken over: what runs may finish; `emptied` is called when nothing is left."""
        self.retired = True
        self._emptied = emptied
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if not self.waiting:
            for instance in list(self.instances.values()):
                self._retire(instance, "replaced")
        self._check_emptied()

    def _check_emptied(self) -> None:
        if self.retired and not self.instances and not self.waiting:
            self.snapshot.close()
            if self._emptied is not None:
                emptied, self._emptied = self._emptied, None
                emptied()

    def kill(self) -> None:
        """End everything now."""
        for instance in list(self.instances.values()):
            instance.kill("the server is stopping")
        self.snapshot.close()
