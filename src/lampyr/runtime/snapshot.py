"""Snapshots: the base, which has imported the runtime, and its children, each of which has imported one function.

Both wait in `poll`, single-threaded and without an event loop, and fork when they are told to: the base forks function
snapshots, a function snapshot forks instances. Everything that can be done before a fork is done before it.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from socket import socket  # as it is before an import can put another one in its place (gevent)
from typing import TYPE_CHECKING, Any, NoReturn

# Some are named for their import alone, which has to come before the fork.
from lampyr.runtime import context, frameworks, leftovers, lines, load, outgoing, reseed, sandbox, snapstart, stack  # noqa: F401
from lampyr.runtime.channel import Channel, Message, unpack
from lampyr.runtime.fork import fork, heed_hooks
from lampyr.runtime.forker import ROOM_TMP, Forker, TidyForker
from lampyr.runtime.holes import fill
from lampyr.runtime.instance import Instance, bare_loop, leave
from lampyr.runtime.loop import heed_patches
from lampyr.runtime.parked import wait_to_be_wanted
from lampyr.runtime.program import Program
from lampyr.runtime.rehearsal import rehearse, rehearse_import
from lampyr.runtime.tracing import pass_on_traces

if TYPE_CHECKING:
    from lampyr.runtime.image import Image

MAX_WARNINGS = 50


def base(channel: Channel) -> NoReturn:
    """Serve as the base snapshot: fork a function snapshot for every spec that arrives."""
    _run_in_batches()
    sandbox.name_process("base")
    means = sandbox.find()
    sandbox.prepare(means)
    apart = sandbox.Apart(means)
    sandbox.adopt_orphans()
    # For all that are forked from here: 1 and 2 are theirs by then, and nothing has been written.
    lines.speak()
    faulthandler.enable(file=2, all_threads=True)  # a crash in compiled code leaves a stack, in instances too
    stack.listen()  # an import that takes too long is asked where it is
    os.environ.clear()  # each is told its own
    heed_hooks()
    pass_on_traces()
    rehearse_import()
    rehearse(sandbox.adopt_orphans)
    loop = bare_loop()
    gc.collect()
    gc.freeze()
    gc.disable()
    filled = fill()  # noqa: F841  as long as this process lives
    image = _image() if means.room else None
    forker = Forker(channel)
    forker.tell({"means": means.as_message()})
    while True:
        spec, fds = forker.next_request()
        how = partial(apart.fork_mapped, spec["users"]) if "packages" in spec else apart.fork
        if forker.fork(how, fds):
            forker.close()
            serve = _shared() if "packages" in spec else function
            serve(spec, Channel.from_fd(fds[0]), fds[1:], means, loop, image)


def _image() -> Image | None:
    from lampyr.runtime.image import taken  # it takes what only Linux has

    return taken()


def _shared() -> Callable[..., NoReturn]:
    from lampyr.runtime.shared import shared  # it imports this module

    return shared


def _run_in_batches() -> None:
    """Let functions not interrupt the gateway whenever it wakes one, where they share a core (sched(7), SCHED_BATCH).

    It then reads all that has come and wakes each once: 1,800 instead of 11,000 forced switches a second. It is no
    lower priority.
    """
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def function(
    spec: Message, channel: Channel, logs: list[int], means: sandbox.Means, loop: Any, image: Image | None
) -> NoReturn:
    """Serve as the snapshot of one function: import it once, then fork an instance at every request.

    Its environment comes over its own channel, so that neither the base nor a sibling ever holds its secrets.
    """
    sandbox.name_process(spec["route"])  # its instances have it from here, and need not write for it
    connect(*logs)
    os.setsid()
    receive_env(channel)
    if means.room:
        os.environ["HOME"] = ROOM_TMP
        os.environ.setdefault("USER", "lampyr")  # a user id without a name is what few programs expect
    sandbox.adopt_orphans()
    try:
        hatch = sandbox.enter(spec, means)
        if hatch is not None:
            channel.send({"hatch": True}, (hatch.fileno(),))
            hatch.close()
        if image is not None:
            image.watch()
        os.chdir(spec["root"])
        outgoing.mark_connections(spec.get("ports", []))
        report = _trace(spec)
        known = len(sys.modules)
        started = time.perf_counter()
        program, warnings = _import(spec)
        heed_patches()
        outgoing.name_invocations(spec.get("broker"))
        instance = Instance(program, loop)
    except BaseException as error:
        fail(channel, error, spec["root"])
    stack.listen()
    gc.freeze()
    gc.disable()
    import_ms = (time.perf_counter() - started) * 1000
    files = load.project_files(spec["root"], known)
    facts = {"import_ms": import_ms, "threads": threads(), "files": files, "warnings": warnings[:MAX_WARNINGS]}
    forker: Forker = TidyForker(channel, image) if means.room else Forker(channel)
    forker.tell({"ready": sorted(instance.program.methods), **facts, **report()})
    while True:
        order, fds = forker.next_request()
        if forker.fork(fork, fds):
            forker.close()
            _become_instance(instance, order, fds)


def fail(channel: Channel, error: BaseException, root: str) -> NoReturn:
    """End this process, whose import has raised `error`; or what that has forked, whose word comes too late."""
    try:
        channel.send({"failed": load.failure(error, root)})
    except OSError:
        pass
    os._exit(1)


def receive_env(channel: Channel) -> None:
    """Wait for the environment, which comes when our limits hold; end where nobody is there to send it."""
    received = channel.receive()
    if received is None:
        os._exit(0)
    os.environ.clear()
    os.environ.update(received[0]["env"])


def _trace(spec: Message) -> Callable[[], Message]:
    """Begin to trace the import, where that is wanted; what is returned gives the result."""
    if not spec.get("trace"):
        return dict
    from lampyr.runtime.trace import Trace

    trace = Trace(spec["root"], spec["file"])
    return lambda: {"trace": trace.report()}


def _import(spec: Message) -> tuple[Program, list[leftovers.Found]]:
    """The program, and what of its import instances cannot share (`types.Problem` as dicts)."""
    load.add_paths(spec["root"], spec["project_paths"], spec["site"], isolated=spec["isolated"])
    with leftovers.Leftovers(spec["root"], spec["file"]) as left:
        module = load.load(spec["file"], spec["base"])
        handlers, app = load.handlers(module), load.application(module)
        program = Program(spec["file"], handlers, app, spec["threads"], spec["stream_keepalive"], spec["route"])
        context.run_hooks("before_snapshot")
    if app is not None:
        frameworks.rehearse()
    gc.collect()
    if sys.stdout is not None:  # it may have been replaced
        sys.stdout.flush()  # or every instance would print again what the import did not end with a newline
    warnings = left.found(reseed.find(left.seeded()))
    if threading.active_count() > 1:
        reseed.renewals[:0] = leftovers.unlock_writers()
    return program, warnings


def _become_instance(instance: Instance, order: dict[str, Any], fds: list[int]) -> NoReturn:
    sock = socket(fileno=fds[0])
    # Whether nothing of the user's runs before the request is read, or could hold it up.
    prompt = instance.application is None and not context.hooks["after_restore"]
    if prompt and "parked" not in order:
        instance.greet(sock)
    connect(*fds[1:3])
    os.setsid()
    # Daemons of an instance come back to it while it lives, and so end with it instead of with a sibling.
    sandbox.adopt_orphans()
    sandbox.private_tmp(order["tmp"])
    reseed.reseed()
    gc.enable()
    if "parked" in order:
        wait_to_be_wanted(instance, sock, unpack(fds[3]), prompt=prompt)
    try:
        context.run_hooks("after_restore")
    except BaseException as error:  # it must not unwind into the snapshot's code
        stack.print_trace(error)
        leave(1)
    instance.serve(sock)


def connect(stdout: int, stderr: int) -> None:
    """Make the pipes this process's stdout and stderr, for Python and for C."""
    for pipe, fd in ((stdout, 1), (stderr, 2)):
        os.dup2(pipe, fd)
        os.close(pipe)


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    base(Channel.from_fd(int(sys.argv[1])))
