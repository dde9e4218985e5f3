"""The supervisor: holds the sockets, starts the other processes, restarts what dies, reaps every orphan."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from lampyr.build import environment
from lampyr.errors import BuildError, LampyrError
from lampyr.node.pulse import Pulse
from lampyr.runtime import sandbox
from lampyr.runtime.channel import Channel, ChannelError, Message
from lampyr.types import Problem

# A process that ended more often than this within a minute will not be cured by another start. One that was killed has
# not ended of itself: whoever did that, the next one may live.
MAX_RESTARTS_A_MINUTE = 10
# What exists only while somebody calls: a process that ends sooner has not started. It is tried again after the first
# of these times, then after twice as long, up to the last; and what is no accident any more is said.
STARTED_S = 10.0
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
TOLD_AFTER = 2
# How long control may take at the end to send the spans that wait. A collector that is away has had its time before.
FINISH_WITHIN_S = 2.0


class Child:
    """One of our own processes, and our end of its channel."""

    def __init__(self, module: str, env: dict[str, str], *more: int) -> None:
        ours, theirs = Channel.pair()
        fds = (theirs.fileno(), *more)
        # -P: a file of the current folder must never pass for one of our modules. A session of its own: Ctrl-C in a
        # terminal reaches the supervisor alone, which ends the others in order.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *map(str, fds)],
            pass_fds=fds,
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self.channel = ours
        self.module = module

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        try:
            self.channel.send(message, fds)
        except OSError:
            pass  # it has died; its end is about to be noticed


class Socketed:
    """A process that exists only while somebody calls: it is given `sock`, ends when idle, is started again here.

    One that cannot start is tried again ever more rarely while its callers wait, and `name` said once.
    """

    def __init__(self, name: str, sock: socket.socket, start: Callable[[int], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self.sock = sock
        self._start = start
        self.process: subprocess.Popen[bytes] | None = None
        self.next_start_s = 0.0
        self._started_s = 0.0
        self._failures = 0

    def start(self) -> None:
        self._started_s = time.monotonic()
        try:
            self.process = self._start(self.sock.fileno())
        except OSError as error:  # no memory, or no Python any more
            self._failed(str(error))

    def ended(self, code: int) -> None:
        """Its process has ended."""
        assert self.process is not None
        self.process.returncode = code
        self.process = None
        self.next_start_s = self._started_s + FIRST_RETRY_S
        if code in (0, -signal.SIGKILL) or time.monotonic() - self._started_s > STARTED_S:
            self._failures = 0  # it was idle, or killed, or has served; whatever that was, the next one may live
        else:
            self._failed(f"its process ended at once (exit {code})")

    def _failed(self, why: str) -> None:
        self._failures += 1
        wait_s = min(FIRST_RETRY_S * 2 ** (self._failures - 1), LAST_RETRY_S)
        self.next_start_s = time.monotonic() + wait_s
        if self._failures == TOLD_AFTER:
            print(
                f"lampyr: error: {self.name} cannot start: {why}\n"
                "hint: look at the lines above for the cause; it is tried again, more rarely each time, when called",
                file=sys.stderr,
                flush=True,
            )


class Supervisor:
    """Runs until it is told to stop. `listening`: the public sockets; `settings`: what the gateway is told about them.

    `vault`, `control`, `console`: what they are told; `master`: the file with the vault's key (vault.held); `door`:
    where control is asked; `desk`: where people reach the console; `broker`: where functions reach it, if there is
    one; `ready()` is called once the first deployment is served.
    """

    def __init__(
        self,
        listening: list[socket.socket],
        settings: Message,
        vault: Message,
        master: int,
        control: Message,
        console: Message,
        door: socket.socket,
        desk: socket.socket,
        ready: Callable[[], None],
        drain_limit_s: float,
        broker: socket.socket | None = None,
    ) -> None:
        self._listening = listening
        self._settings = settings
        self._vault = vault
        self._master = master
        self._control = control
        self._console = console
        self._door = door
        self._broker = broker
        self._ready = ready
        self._drain_limit_s = drain_limit_s
        self._env = environment.ours(os.environ)
        self._children: dict[int, Child] = {}
        self._socketed = [Socketed("the console", desk, self._start_console)]
        self._pulse: Pulse | None = None  # of the vault process, which works for nobody most of the time
        self._died: list[float] = []
        self._signals: list[int] = []
        self._drain_until: float | None = None
        self._finish_until: float | None = None
        self._refused: LampyrError | None = None
        self._was_ready = False

    # --- life

    def start_on_call(
        self, name: str, sock: socket.socket, command: Callable[[int], list[str]], env: Mapping[str, str]
    ) -> None:
        """Have `command(fd)` executed whenever somebody calls the listening socket and nobody serves it.

        `env` is what it gets beyond what all our processes get.
        """
        all_of_it = {**self._env, **env}

        def start(fd: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command(fd), pass_fds=(fd,), env=all_of_it, stdin=subprocess.DEVNULL, start_new_session=True
            )

        self._socketed.append(Socketed(name, sock, start))

    def run(self) -> int:
        """Serve until a signal. Returns the exit code: 0 after SIGTERM, 130 after SIGINT. Raises LampyrError."""
        sandbox.adopt_orphans()
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        old = {signum: signal.signal(signum, self._noted) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            self._start_vault()
            self._start_broker()
            self._start_gateway()
            self._start_control()
            while self._turn(wake):
                pass
        finally:
            self._end_all()
            for signum, handler in old.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(before)
            os.close(wake)
            os.close(waker)
        if self._refused is not None:
            raise self._refused
        return 130 if self._signals and self._signals[0] == signal.SIGINT else 0

    def _noted(self, signum: int, _: object) -> None:
        self._signals.append(signum)

    def _turn(self, wake: int) -> bool:
        """Wait for something to happen and act on it; False when all is over."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        channels = {
            child.channel.fileno(): child for child in self._children.values() if child.channel.sock.fileno() >= 0
        }
        now = time.monotonic()
        dark = {one.sock.fileno(): one for one in self._socketed if one.process is None and one.next_start_s <= now}
        for fd in (*channels, *dark):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(self._patience_ms(now)):
            if fd == wake:
                os.read(wake, 4096)
            elif fd in dark:
                dark[fd].start()
            else:
                self._hear(channels[fd])
        self._feel_pulse()
        self._reap()
        if self._refused is not None or len(self._signals) > 1:
            return False
        if self._signals and self._drain_until is None:
            self._drain()
        if self._finish_until is not None:
            return self._find("lampyr.control") is not None and time.monotonic() < self._finish_until
        if self._drain_until is not None and (
            not self._find("lampyr.gateway") or time.monotonic() >= self._drain_until
        ):
            return self._finish()
        return True

    def _patience_ms(self, now: float) -> float | None:
        """How long nothing may happen: until the drain ends, or a process that ended may be started again."""
        times = [one.next_start_s for one in self._socketed if one.process is None and one.next_start_s > now]
        until = self._finish_until or self._drain_until or (self._pulse.next_s if self._pulse is not None else None)
        times += [until] if until is not None else []
        return max(min(times) - now, 0.0) * 1000 if times else None

    def _feel_pulse(self) -> None:
        """End a vault process that does not answer: another one takes its place."""
        vault = self._find("lampyr.vault")
        if vault is None or self._pulse is None or self._pulse.look(time.monotonic()):
            return
        self._pulse = None
        print("lampyr: warning: the vault process does not answer; another one takes its place", file=sys.stderr)
        vault.process.kill()

    def _drain(self) -> None:
        """Take no new connection, let the gateway finish what runs."""
        self._drain_until = time.monotonic() + self._drain_limit_s
        for sock in self._listening:
            sock.close()
        gateway = self._find("lampyr.gateway")
        if gateway is not None:
            gateway.say({"drain": True})

    def _finish(self) -> bool:
        """Nothing more will happen. Where spans are sent they are sent to the last; all else is on disk already."""
        control = self._find("lampyr.control")
        if control is None or self._control["tracing"] is None:
            return False
        control.say({"finish": True})
        self._finish_until = time.monotonic() + FINISH_WITHIN_S
        return True

    def _hear(self, child: Child) -> None:
        try:
            messages, alive = child.channel.drain()
        except (ChannelError, OSError):
            messages, alive = [], False
        for message, _ in messages:
            if "ready" in message and not self._was_ready:
                self._was_ready = True
                self._ready()
            elif "alive" in message and self._pulse is not None:
                self._pulse.heard(time.monotonic())
            elif "refused" in message:
                problems = [Problem(**one) for one in message["problems"]]
                kind = BuildError if problems else LampyrError
                self._refused = kind(message["refused"], message["hint"], problems)
        if not alive:
            child.channel.close()

    # --- the processes

    def _find(self, module: str) -> Child | None:
        return next((child for child in self._children.values() if child.module == module), None)

    def _start(self, module: str) -> Child:
        child = Child(module, self._env)
        self._children[child.pid] = child
        return child

    def _start_gateway(self) -> None:
        gateway = self._start("lampyr.gateway")
        gateway.say({**self._settings, "listen": True}, tuple(sock.fileno() for sock in self._listening))
        self._start_base(gateway)

    def _start_base(self, gateway: Child) -> None:
        base = self._start("lampyr.runtime.snapshot")
        gateway.say({"base": True}, (base.channel.fileno(),))
        base.channel.close()

    def _start_vault(self) -> None:
        # What functions get of the process environment it hears here: it would be in /proc/PID/environ for ever.
        vault = self._start("lampyr.vault")
        vault.say({**self._vault, "process": dict(os.environ)}, (self._master,))
        self._pulse = Pulse(vault.pid, partial(vault.say, {"alive": True}), time.monotonic())

    def _start_broker(self) -> None:
        if self._broker is not None:
            told = {"listen": True, "ledger": self._settings["ledger"]}
            self._start("lampyr.broker").say(told, (self._broker.fileno(),))

    def _start_control(self) -> None:
        self._start("lampyr.control").say(self._control, (self._door.fileno(),))
        for name in ("broker", "vault", "gateway", "console"):
            self._introduce(name)

    def _start_console(self, fd: int) -> subprocess.Popen[bytes]:
        console = self._start("lampyr.console")
        console.say(self._console, (fd,))
        self._introduce("console")
        return console.process

    def _introduce(self, name: str) -> None:
        """Give control and another of our processes a channel to one another, where both live."""
        child, control = self._find(f"lampyr.{name}"), self._find("lampyr.control")
        if child is not None and control is not None:
            one, other = Channel.pair()
            child.say({"control": True}, (one.fileno(),))
            control.say({name: True}, (other.fileno(),))
            one.close()
            other.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            for one in self._socketed:
                if one.process is not None and one.process.pid == pid:
                    one.ended(code)
            if child is not None:
                child.process.returncode = code
                child.channel.close()
                if self._drain_until is None:
                    self._replace(child)

    def _replace(self, dead: Child) -> None:
        if dead.module == "lampyr.console":
            return  # whoever calls it next starts it
        now = time.monotonic()
        if dead.process.returncode != -signal.SIGKILL:
            self._died = [when for when in self._died if now - when < 60] + [now]
        if len(self._died) > MAX_RESTARTS_A_MINUTE:
            self._refused = LampyrError(
                f"{dead.module} ended {len(self._died)} times within a minute (last exit: {dead.process.returncode})",
                "look at the lines above for the cause; the server has stopped so that it does not spin",
            )
            return
        match dead.module:
            case "lampyr.gateway":
                self._forget_base()
                self._start_gateway()
                self._introduce("gateway")
            case "lampyr.runtime.snapshot":
                if (gateway := self._find("lampyr.gateway")) is not None:
                    self._start_base(gateway)
            case "lampyr.vault":
                self._start_vault()
                self._introduce("vault")
            case "lampyr.broker":
                self._start_broker()
                self._introduce("broker")
            case "lampyr.control":
                self._start_control()

    def _forget_base(self) -> None:
        """Its channel led to the dead gateway, so it leaves by itself; forgotten, it is not replaced twice."""
        base = self._find("lampyr.runtime.snapshot")
        if base is not None:
            del self._children[base.pid]
            base.process.returncode = 0

    def _end_all(self) -> None:
        """Leave no process behind: ours first, then whatever of theirs has become our child."""
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            for pid in _children_of(os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        for child in self._children.values():
            child.process.returncode = -signal.SIGKILL
            child.channel.close()
        for one in self._socketed:
            if one.process is not None:
                one.process.returncode = -signal.SIGKILL


def _children_of(pid: int) -> set[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # not Linux, or the process is gone
        return set()
    return {int(child) for child in text.split()}
