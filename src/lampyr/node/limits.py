"""Control groups: what a function's processes may use of memory, tasks and processor time (Linux, version 1 or 2).

    <the server's own group>/lampyr-<pid of the gateway>/<function>/snapshot, <function>/<instance>

A process starts in its snapshot's group, at no cost, and is moved to one of its own a few milliseconds later: moving
waits for the whole machine (an RCU grace period, 6 ms measured), so nobody who serves a request waits for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

CONTROLLERS = ("memory", "pids", "cpu")
PREFIX = "lampyr-"
SERVER = f"{PREFIX}server"
MIB = 1024 * 1024
# Enough for every thread pool a library makes by the number of processors.
MAX_TASKS = max(256, 4 * (os.cpu_count() or 1))
# A snapshot shares its pages with all instances, and what an instance touches before it has moved counts here.
IMPORT_SLACK_MIB, MOVING_MIB = 1024, 16
GONE_WITHIN_S = 0.5

# A snapshot that comes back must not meet the group of the one before, which may still be on its way out.
_numbers = count(1)


class Group:
    """One group: a folder in each hierarchy."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders  # controller -> folder; the same one for all in version 2
        for folder in self._different():
            folder.mkdir(exist_ok=True)

    def _different(self) -> Iterable[Path]:
        return dict.fromkeys(self._folders.values())

    def within(self, name: str) -> Group:
        """A group inside this one, made if it is not there."""
        inner = Group({one: folder / name for one, folder in self._folders.items()})
        for folder in self._different():
            _enable(folder)
        return inner

    def hold(self, *, memory_mib: int, tasks: int) -> None:
        """Set the limits that this machine has."""
        memory, pids = self._folders.get("memory"), self._folders.get("pids")
        if memory is not None:
            bound = str(memory_mib * MIB)
            _set(memory, ("memory.max", "memory.limit_in_bytes"), bound)
            _set(memory, ("memory.swap.max",), "0")
            _set(memory, ("memory.memsw.limit_in_bytes",), bound)
        if pids is not None:
            _set(pids, ("pids.max",), str(tasks))

    def share(self, processors: int) -> None:
        """How much of a busy machine's time is fair: in version 2 each group of a level has the same anyway."""
        if "cpu" in self._folders:
            _set(self._folders["cpu"], ("cpu.shares",), str(1024 * processors))

    def enter(self, pid: int) -> None:
        """Move a process here. Raises OSError: it has ended, or may not be moved."""
        if pid <= 0:  # 0 would be this very process
            raise ProcessLookupError
        for folder in self._different():
            (folder / "cgroup.procs").write_text(str(pid))

    def memory_kills(self) -> int:
        """How often the kernel has ended a process of this very group for its memory."""
        folder = self._folders.get("memory")
        return _count(folder, ("memory.events", "memory.oom_control"), "oom_kill") if folder else 0

    def used_bytes(self, exactly_from: int) -> int | None:
        """Memory that cannot be taken back from its processes; below `exactly_from` with the files they have read."""
        folder = self._folders.get("memory")
        if folder is None:
            return None
        used_bytes = _number(folder, ("memory.current", "memory.usage_in_bytes"))
        if used_bytes >= exactly_from:  # the system would let go of cached files first
            used_bytes -= sum(_count(folder, ("memory.stat",), key) for key in ("inactive_file", "active_file"))
        return used_bytes

    def refused_tasks(self) -> int:
        """How often a process or thread was not made because of the limit."""
        folder = self._folders.get("pids")
        return _count(folder, ("pids.events",), "max") if folder else 0

    def end_all_but(self, pid: int) -> None:
        """End all processes in it but one, having kept them from making more meanwhile."""
        pids = self._folders.get("pids")
        bound = (pids / "pids.max").read_text() if pids is not None else ""
        if pids is not None:
            _set(pids, ("pids.max",), "0")
        _kill(next(iter(self._folders.values())), pid)
        if pids is not None:
            _set(pids, ("pids.max",), bound)

    def remove(self) -> bool:
        """End what is left in it and remove it. False: something is still there."""
        gone = [_remove(folder) for folder in self._different()]
        return all(gone)


class Fence:
    """The groups of one function. Without control groups nothing happens here and nothing is held up."""

    def __init__(self, limits: Limits, route: str, name: str, memory_mib: int, max_instances: int) -> None:
        self._limits = limits
        self._route = route
        self._name = name
        self._memory_mib = memory_mib
        self._max_instances = max_instances
        self._group: Group | None = None
        self._snapshot: Group | None = None
        self._instances: dict[int, Group] = {}
        self._pid = -1
        self._kills = 0
        self._refused = 0

    def admit_snapshot(self, pidfd: int, then: Callable[[], None]) -> None:
        """Move the function's snapshot into its group, then go on: it has not run any of the user's code yet."""
        if self._limits.group is None:
            then()
        else:
            self._limits.do(self._take_snapshot, pid_of(pidfd), then=then)

    def _take_snapshot(self, pid: int) -> None:
        assert self._limits.group is not None
        self._group = self._limits.group.within(f"{self._name}.{next(_numbers)}")
        self._snapshot = self._group.within("snapshot")
        memory_mib = self._memory_mib + IMPORT_SLACK_MIB + MOVING_MIB * self._max_instances
        self._snapshot.hold(memory_mib=memory_mib, tasks=MAX_TASKS + self._max_instances)
        self._snapshot.enter(pid)
        self._pid = pid
        self._kills = self._snapshot.memory_kills()

    def admit(self, number: int, pidfd: int) -> None:
        """Move an instance into a group of its own."""
        if self._group is not None:
            self._limits.do(self._take, number, pid_of(pidfd))

    def _take(self, number: int, pid: int) -> None:
        assert self._group is not None
        self._instances[number] = group = self._group.within(str(number))
        group.hold(memory_mib=self._memory_mib, tasks=MAX_TASKS)
        group.enter(pid)

    def out_of_memory(self, number: int) -> bool:
        """Whether the kernel has ended a process of this instance for its memory."""
        group = self._instances.get(number)
        if group is not None and group.memory_kills():
            return True
        if self._snapshot is None or self._snapshot.memory_kills() == self._kills:
            return False
        self._kills = self._snapshot.memory_kills()  # it had not been moved yet
        return True

    def used_bytes(self, number: int, exactly_from: int) -> int | None:
        """Memory of an instance, see `Group.used_bytes`; None where nobody counts it."""
        group = self._instances.get(number)
        return group.used_bytes(exactly_from) if group is not None else None

    def release(self, number: int) -> None:
        """An instance is over: end what it left, say which limit it met."""
        if self._group is not None:
            self._limits.do(self._let_go, number)

    def end(self, number: int) -> None:
        """End all processes of an instance at once: one by one, a fork bomb would take seconds to clear away."""
        if self._group is not None:
            self._limits.do(self._end, number)

    def _end(self, number: int) -> None:
        group = self._instances.get(number)
        if group is not None:
            group.end_all_but(-1)
        if self._snapshot is not None and self._snapshot.refused_tasks() != self._refused:
            self._refused = self._snapshot.refused_tasks()
            self._limits.tell(f"{self._route} has reached the limit of processes and threads of its snapshot")
            self._snapshot.end_all_but(self._pid)  # a bomb that was quicker than the move

    def _let_go(self, number: int) -> None:
        self._end(number)
        group = self._instances.pop(number, None)
        if group is not None:
            if group.refused_tasks():
                self._limits.tell(f"{self._route} has reached the limit of {MAX_TASKS} processes and threads")
            self._limits.remove(group)

    def close(self) -> None:
        """The snapshot is over, and with it all instances."""
        if self._group is not None:
            self._limits.do(self._limits.remove, self._group)


class Limits:
    """Makes, fills and removes the groups of one gateway's functions: in order, on a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[str], None]) -> None:
        self._loop = loop
        self._told = told
        self._thread = ThreadPoolExecutor(1, "limits")
        self._left: list[Group] = []
        self.group, self.missing = open_group() if sys.platform == "linux" else (None, {})

    def do(self, step: Callable[..., None], *arguments: Any, then: Callable[[], None] | None = None) -> None:
        self._thread.submit(self._do, step, arguments, then)

    def _do(self, step: Callable[..., None], arguments: tuple[Any, ...], then: Callable[[], None] | None) -> None:
        try:
            step(*arguments)
        except ProcessLookupError:
            pass  # it has ended in the meantime
        except OSError as error:
            self.tell(f"warning: a limit cannot be set: {error}")
        if then is not None:
            self._loop.call_soon_threadsafe(then)

    def tell(self, text: str) -> None:
        """Say something in the log, from any thread."""
        self._loop.call_soon_threadsafe(self._told, text)

    def remove(self, group: Group) -> None:
        """Remove a group now, or later if a process in it takes its time to die."""
        self._left = [one for one in [*self._left, group] if not one.remove()]


def own_bytes(pidfd: int) -> int:
    """The memory of a process that it shares with no other, 0 where that cannot be known (proc_pid_smaps(5))."""
    try:
        text = Path(f"/proc/{pid_of(pidfd)}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_"))


def pid_of(pidfd: int) -> int:
    """The number that a process has here, whatever it is called in its own namespace (pidfd_open(2))."""
    try:
        text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    except OSError:
        return -1  # not Linux
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:")), -1)


def _set(folder: Path, names: tuple[str, ...], value: str) -> None:
    """Write to the first of these files that there is."""
    for name in names:
        try:
            fd = os.open(folder / name, os.O_WRONLY | os.O_CLOEXEC)  # never O_CREAT: these folders make their own files
        except FileNotFoundError:
            continue
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
        return


def _count(folder: Path, names: tuple[str, ...], key: str) -> int:
    for name in names:
        try:
            lines = (folder / name).read_text().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.split()[:1] == [key]), 0)
    return 0


def _number(folder: Path, names: tuple[str, ...]) -> int:
    for name in names:
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):
            continue
    return 0


def anonymous_bytes(pid: int) -> int:
    """Memory of one process that belongs to no file (proc_pid_statm(5)); 0 where nobody says."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _enable(folder: Path) -> None:
    """In version 2 a group hands its controllers down only when it is told to."""
    control = folder / "cgroup.subtree_control"
    if control.exists():
        offered = (folder / "cgroup.controllers").read_text().split()
        control.write_text(" ".join(f"+{one}" for one in CONTROLLERS if one in offered))


def _remove(folder: Path) -> bool:
    """Remove a group with all that are in it, ending their processes."""
    if not folder.exists():
        return True
    for inner in folder.iterdir():
        if inner.is_dir():
            _remove(inner)
    _set(folder, ("cgroup.kill",), "1")
    _set(folder, ("pids.max",), "0")  # who cannot fork cannot get away
    until = time.monotonic() + GONE_WITHIN_S
    while True:
        _kill(folder)
        try:
            folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        else:
            return True


def _kill(folder: Path, spared: int = -1) -> None:
    try:
        pids = [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return
    for pid in pids:
        try:
            if pid != spared:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


# --- where groups can be made


def find(top: int | None = None) -> tuple[dict[str, Path], dict[str, str]]:
    """For each controller the group this process is in, where groups can be made inside it; and why not elsewhere.

    `top` is the server's eldest process; without one it is this process.
    """
    places: dict[str, Path] = {}
    missing: dict[str, str] = {}
    try:
        own = dict(_own_groups())
    except OSError:
        return {}, dict.fromkeys(CONTROLLERS, "this system has no control groups")
    for one in CONTROLLERS:
        folder = own.get(one) or own.get("")
        if folder is None or (one not in own and not _offers(folder, one)):
            missing[one] = "no control group offers it"
        elif folder.name == SERVER:  # a gateway that follows another one
            places[one] = folder.parent
        elif not os.access(folder, os.W_OK | os.X_OK) or not os.access(folder / "cgroup.procs", os.W_OK):
            missing[one] = f"{folder} may not be written"
        elif one not in own and not _may_have_children(folder, top or os.getpid()):
            missing[one] = f"{folder} holds processes that are not this server's"
        else:
            places[one] = folder
    return places, missing


def _own_groups() -> Iterator[tuple[str, Path]]:
    """Controller and the folder of our own group in its hierarchy; "" stands for version 2."""
    mounts = list(_mounts())
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for kind, root, mount, options in mounts:
            inside = path if root == "/" else path.removeprefix(root)
            if names == "" and kind == "cgroup2":
                yield "", Path(f"{mount}/{inside.lstrip('/')}")
            elif names and kind == "cgroup" and set(names.split(",")) <= options:
                yield from ((name, Path(f"{mount}/{inside.lstrip('/')}")) for name in names.split(","))


def _mounts() -> Iterator[tuple[str, str, str, set[str]]]:
    """Kind, root, mount point and options of the mounted hierarchies (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, mount = before.split()[3:5]
            yield kind, root, mount, set(options.split(","))


def _offers(folder: Path, controller: str) -> bool:
    try:
        return controller in (folder / "cgroup.controllers").read_text().split()
    except OSError:
        return False


def _may_have_children(folder: Path, top: int) -> bool:
    """In version 2 a group hands controllers down only if no process is in it, so ours have to be all there are."""
    if not (folder / "cgroup.type").exists():  # the root of all groups is free of that rule
        return True
    theirs = {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
    return theirs <= _below(top)


def _below(top: int) -> set[int]:
    """A process and everything that descends from it."""
    found, pending = set[int](), [top]
    while pending:
        pid = pending.pop()
        found.add(pid)
        try:
            pending += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue
    return found


def open_group() -> tuple[Group | None, dict[str, str]]:
    """The group of this gateway's functions, and why it lacks what it lacks. What dead gateways left is removed."""
    places, missing = find(os.getppid())
    remove_stale(places)
    if not places:
        return None, missing
    try:
        for folder in dict.fromkeys(places.values()):
            _make_room(folder)
        group = Group({one: folder / f"{PREFIX}{os.getpid()}" for one, folder in places.items()})
        group.share(os.cpu_count() or 1)
    except OSError as error:
        return None, dict.fromkeys(CONTROLLERS, f"a control group cannot be made: {error}")
    return group, missing


def _make_room(folder: Path) -> None:
    """In version 2: put our own processes into a group beside the functions', so that `folder` may have children."""
    if not (folder / "cgroup.type").exists():
        if (folder / "cgroup.subtree_control").exists():
            _enable(folder)
        return
    own = folder / SERVER
    own.mkdir(exist_ok=True)
    for pid in (folder / "cgroup.procs").read_text().split():
        (own / "cgroup.procs").write_text(pid)
    _enable(folder)


def remove_stale(places: dict[str, Path] | None = None) -> None:
    """Remove the groups of gateways that have ended without doing so."""
    for folder in dict.fromkeys((find()[0] if places is None else places).values()):
        for group in folder.glob(f"{PREFIX}*"):
            number = group.name.removeprefix(PREFIX)
            if number.isdigit() and not _is_gateway(int(number)):
                _remove(group)


def _is_gateway(pid: int) -> bool:
    try:
        return b"lampyr.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
