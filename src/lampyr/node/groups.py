"""One control group: its limits, what is in it and what that uses, its end (Linux, version 1 or 2)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

CONTROLLERS = ("memory", "pids", "cpu")
MIB = 1024 * 1024
GONE_WITHIN_S = 0.5


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
            hand_down(folder)
        return inner

    def hold(self, *, memory_mib: int, tasks: int) -> None:
        """Set the limits that this machine has."""
        memory, pids = self._folders.get("memory"), self._folders.get("pids")
        if memory is not None:
            bound = str(memory_mib * MIB)
            _set(memory, ("memory.memsw.limit_in_bytes",), "-1")  # never less than the next, which may grow
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
        gone = [remove(folder) for folder in self._different()]
        return all(gone)


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


def hand_down(folder: Path) -> None:
    """In version 2 a group hands its controllers down only when it is told to."""
    control = folder / "cgroup.subtree_control"
    if control.exists():
        offered = (folder / "cgroup.controllers").read_text().split()
        control.write_text(" ".join(f"+{one}" for one in CONTROLLERS if one in offered))


def remove(folder: Path) -> bool:
    """Remove a group with all that are in it, ending their processes."""
    try:
        for inner in folder.iterdir():
            if inner.is_dir():
                remove(inner)
        _set(folder, ("cgroup.kill",), "1")
        _set(folder, ("pids.max",), "0")  # who cannot fork cannot get away
    except OSError:
        pass  # another server of this machine removes it, too: ENODEV, or it is not there any more
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
            if pid > 0 and pid != spared:  # 0 is who is in another PID namespace, and to kill(2) our own group
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
