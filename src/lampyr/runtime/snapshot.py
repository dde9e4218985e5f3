"""Snapshots: the base, which has imported the runtime, and its children, each of which has imported one function.

Both wait in `poll`, single-threaded and without an event loop, and fork when they are told to: the base forks function
snapshots, a function snapshot forks instances. Everything that can be done before a fork is done before it.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

from lampyr.runtime import context, instance, load, sandbox
from lampyr.runtime.channel import Channel, Message
from lampyr.runtime.program import Program
from lampyr.runtime.reseed import reseed

# The gateway sends this signal when a deadline has passed; the answer is a stack on the log pipe (faulthandler).
STACK_SIGNAL = signal.SIGXCPU


class Forker:
    """Forks children on request over one channel and reports each that has ended."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.children: dict[int, int] = {}  # pidfd -> pid
        self.poll = select.poll()
        self.poll.register(channel.fileno(), select.POLLIN)

    def next_request(self) -> tuple[Message, list[int]]:
        """Wait for a request, reaping meanwhile. When the peer has closed, end the children and this process."""
        if (arrived := self.channel.next()) is not None:
            return arrived
        while True:
            for fd, _ in self.poll.poll():
                if fd in self.children:
                    self.reap(fd)
                elif (request := self.channel.receive()) is not None:
                    return request
                else:
                    self.end()

    def forked(self, pid: int) -> None:
        """Tell the peer about a new child. The pidfd cannot come to mean another process, as a pid can."""
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = pid
        self.poll.register(pidfd, select.POLLIN)
        self.tell({"forked": pid}, (pidfd,))

    def reap(self, pidfd: int) -> None:
        pid = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.end_orphans()
        self.tell({"exited": pid, "status": status})

    def tell(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        try:
            self.channel.send(message, fds)
        except OSError:  # nobody is there to hear it, or to give another order
            self.end()

    def end_orphans(self) -> None:
        """End what an ended instance left behind: as its subreaper this process has become the parent."""
        known = set(self.children.values())
        while strangers := [pid for pid in _children() if pid not in known]:
            for pid in strangers:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def end(self) -> NoReturn:
        for pid in self.children.values():
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    def close(self) -> None:
        """In a child: let go of everything that belongs to its parent."""
        self.channel.close()
        for pidfd in self.children:
            os.close(pidfd)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def base(channel: Channel) -> NoReturn:
    """Serve as the base snapshot: fork a function snapshot for every spec that arrives."""
    _run_in_batches()
    sandbox.adopt_orphans()
    gc.collect()
    gc.freeze()
    gc.disable()
    forker = Forker(channel)
    while True:
        spec, fds = forker.next_request()
        pid = os.fork()
        if pid == 0:
            forker.close()
            function(spec, Channel.from_fd(fds[0]), fds[1:])
        for fd in fds:
            os.close(fd)
        forker.forked(pid)


def _run_in_batches() -> None:
    """Let functions not interrupt the gateway whenever it wakes one, where they share a core (sched(7), SCHED_BATCH).

    It then reads all that has come and wakes each once: 1,800 instead of 11,000 forced switches a second. It is no
    lower priority.
    """
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def function(spec: Message, channel: Channel, logs: list[int]) -> NoReturn:
    """Serve as the snapshot of one function: import it once, then fork an instance at every request.

    Its environment comes over its own channel, so that neither the base nor a sibling ever holds its secrets.
    """
    _speak_into(*logs)
    os.setsid()
    received = channel.receive()
    if received is None:
        os._exit(0)
    os.environ.clear()
    os.environ.update(received[0]["env"])
    os.chdir(spec["root"])
    sandbox.adopt_orphans()
    sandbox.enter(spec["memory_mib"])
    started = time.perf_counter()
    try:
        program = _import(spec)
    except BaseException as error:
        channel.send({"failed": load.failure(error, spec["root"])})
        os._exit(1)
    # A stack asked for at a deadline has to come out even when Python code never runs again.
    faulthandler.register(STACK_SIGNAL, file=2, all_threads=True)
    gc.collect()
    gc.freeze()
    gc.disable()
    import_ms = (time.perf_counter() - started) * 1000
    facts = {"import_ms": import_ms, "threads": _threads(), "files": load.project_files(spec["root"])}
    channel.send({"ready": sorted(program.methods), **facts})
    forker = Forker(channel)
    while True:
        order, fds = forker.next_request()
        pid = os.fork()
        if pid == 0:
            forker.close()
            _become_instance(program, order, fds)
        for fd in fds:
            os.close(fd)
        forker.forked(pid)


def _import(spec: Message) -> Program:
    load.add_paths(spec["root"], spec["project_paths"], spec["site"])
    module = load.load(spec["file"], spec["base"])
    handlers, app = load.handlers(module), getattr(module, "app", None)
    program = Program(spec["file"], handlers, app, spec["threads"], spec["stream_keepalive"], spec["route"])
    for hook in context.hooks["before_snapshot"]:
        hook()
    return program


def _become_instance(program: Program, order: dict[str, Any], fds: list[int]) -> NoReturn:
    _speak_into(*fds[1:])
    os.setsid()
    # Daemons of an instance come back to it while it lives, and so end with it instead of with a sibling.
    sandbox.adopt_orphans()
    sandbox.private_tmp(order["tmp"])
    reseed()
    gc.enable()
    for hook in context.hooks["after_restore"]:
        hook()
    instance.serve(program, fds[0])


def _speak_into(stdout: int, stderr: int) -> None:
    """Make the pipes this process's stdout and stderr, for Python and for C, line by line."""
    for pipe, fd in ((stdout, 1), (stderr, 2)):
        os.dup2(pipe, fd)
        os.close(pipe)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    base(Channel.from_fd(int(sys.argv[1])))
