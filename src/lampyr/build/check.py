"""A trial import of every function: what each loads, and what cannot be imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lampyr.build import environment, frozen, spec
from lampyr.build.environment import Environment
from lampyr.build.hearing import Hearing, Pipe
from lampyr.build.packages import Packages
from lampyr.build.scan import relative
from lampyr.config import Config
from lampyr.core import endings
from lampyr.runtime.channel import Channel, ChannelError
from lampyr.runtime.stack import STACK_SIGNAL
from lampyr.runtime.users import Users
from lampyr.types import Function, Problem, Project

IMPORT_TIMEOUT_S = 60.0
# So long an import whose time is over may take to write where it stands.
STACK_S = 0.5
MAX_CHARS = 500  # of what a process says about itself
# A process whose channel has closed is dead or about to be.
EXIT_TIMEOUT_S = 5.0


class Fence(Protocol):
    """The limits of one import that the system keeps, as far as it does (node.limits.Fence)."""

    def admit_snapshot(self, pidfd: int, then: Callable[[], None]) -> None: ...
    def met_at_import(self) -> tuple[str, str] | None: ...
    def close(self) -> None: ...


def imports(
    project: Project,
    config: Config,
    env: Environment,
    packages: Mapping[str, Packages],
    begin: Callable[[Function], None],
    fence: Callable[[str, int], Fence],
) -> Iterator[tuple[Function, dict[str, Any]]]:
    """Import each function in a snapshot of its own: `{"ready", "import_ms", "files", "warnings"...}` or `{"failed"}`.

    What it loads is there as "trace" (runtime.trace). `packages` are by route; `begin` is called before each import,
    `fence` with its name and its function's memory in MiB.
    """
    hearing = Hearing(env.values.get(name, "") for name in env.secrets)
    pipe = Pipe(hearing)
    ours, theirs = Channel.pair()
    base = subprocess.Popen(
        [sys.executable, "-P", "-m", "lampyr.runtime.snapshot", str(theirs.fileno())],
        pass_fds=(theirs.fileno(),),
        # What a process was started with can be read in /proc for ever, by what it forks too.
        env=environment.ours(os.environ),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()
    users = Users(str(project.root))
    try:
        for function in project.functions:
            if function.problem is None:
                begin(function)
                what = {
                    **spec.of(function, project, config, packages[function.route]),
                    "user": users.of(function.route),
                }
                what["trace"] = True
                around = fence(str(what["user"]), what["memory_mib"])
                yield function, hearing.clean_facts(_import(ours, what, env.of(function), pipe.writer, around))
    finally:
        ours.close()
        base.wait()
        pipe.finish()


def _import(base: Channel, what: dict[str, Any], env: dict[str, str], out: int, fence: Fence) -> dict[str, Any]:
    """`out`: for what it prints."""
    ours, theirs = Channel.pair()
    pid, pidfd = -1, -1
    try:
        base.send(what, (theirs.fileno(), out, out))
        theirs.close()
        pid, pidfd = _forked(base)
        fence.admit_snapshot(pidfd, lambda: ours.send({"env": env}))
        ours.sock.settimeout(IMPORT_TIMEOUT_S)
        received = ours.receive()
        if received is None:
            return {"failed": _ended(what, _exit_status(base, pid), fence)}
        facts = received[0]
        if "failed" in facts and not facts["failed"].get("hint") and (met := fence.met_at_import()) is not None:
            facts["failed"]["hint"] = ": ".join(met)
        return facts
    except TimeoutError:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, STACK_SIGNAL)
        time.sleep(STACK_S)
        message = f"the import did not finish within {IMPORT_TIMEOUT_S:.0f} s"
        return {"failed": _failure(what, message, ": ".join(fence.met_at_import() or (endings.ENDLESS,)))}
    except (OSError, ChannelError) as error:
        return {"failed": _failure(what, f"the import process ended: {error}")}
    finally:
        ours.close()
        if pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        fence.close()


def _forked(base: Channel) -> tuple[int, int]:
    """The number and the pidfd of the child that the base has been asked for. Raises OSError."""
    while (received := base.receive()) is not None:
        message, fds = received
        if "forked" in message:
            return message["forked"], fds[0]
        if "unforked" in message:
            raise OSError(message["unforked"])
    raise OSError("nobody is there to make it")


def _exit_status(base: Channel, pid: int) -> int | None:
    """Wait for what the base says about its child, whose channel is closed; None where it does not say it."""
    base.sock.settimeout(EXIT_TIMEOUT_S)
    try:
        while (received := base.receive()) is not None:
            if received[0].get("exited") == pid:
                return int(received[0]["status"])
    except (OSError, ChannelError):
        pass
    finally:
        base.sock.settimeout(None)
    return None


def _ended(what: dict[str, Any], status: int | None, fence: Fence) -> dict[str, Any]:
    """Of an import whose process has ended before it said anything."""
    if (met := fence.met_at_import()) is not None:
        return _failure(what, *met)
    message = "the process ended while it was importing the function"
    if status is None:
        return _failure(what, message)
    return _failure(what, f"{message}: it {endings.told(status)}", endings.hint(status))


def _failure(what: dict[str, Any], message: str, hint: str = "") -> dict[str, Any]:
    return {"file": what["file"], "line": None, "message": message, "hint": hint, "traceback": message}


def warnings_of(facts: Mapping[str, Any], root: Path) -> Iterator[Problem]:
    """What of an import instances cannot share: what its process has found, and values that its files make only once.

    `facts` come from a process that runs the user's code. What is not of their shape is passed over.
    """
    files, warnings = (told if isinstance(told := facts.get(name), list) else [] for name in ("files", "warnings"))
    for file in files:
        if isinstance(file, str) and file.startswith(f"{root}/"):
            yield from _frozen(Path(file), root)
    for found in warnings:
        try:
            file, message, hint = (_one_line(found[name]) for name in ("file", "message", "hint"))
            line = None if found["line"] is None else int(found["line"])
        except (TypeError, KeyError, ValueError):
            continue
        yield Problem(file=file.removeprefix(f"{root}/"), line=line, message=message, hint=hint)


def _one_line(text: object) -> str:
    return " ".join(str(text)[:MAX_CHARS].split())


def _frozen(file: Path, root: Path) -> Iterator[Problem]:
    try:
        source = file.read_bytes()
    except OSError:  # it has just been removed
        return
    for line, message, hint in frozen.read(source):
        yield Problem(file=relative(root, file), line=line, message=message, hint=hint)


def problem_of(function: Function, project: Project, failure: Mapping[str, Any]) -> Problem:
    """A failed import in the words of a build error."""
    file = str(failure["file"] or function.file)
    hint = failure.get("hint") or "run it with `python` to see the whole traceback, or start `lampyr dev`"
    return Problem(
        file=file.removeprefix(str(project.root) + "/"), line=failure["line"], message=failure["message"], hint=hint
    )
