"""Where on this system control groups can be made, and the server's own place among them (Linux, version 1 or 2)."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lampyr.node.groups import CONTROLLERS, Group, hand_down, remove

PREFIX = "lampyr-"
SERVER = f"{PREFIX}server"
# Of a gateway, by its pid; numbered where a gateway of another PID namespace has the same one.
_GATEWAYS = re.compile(rf"{PREFIX}(\d+)(\.\d)?")
MOST_NAMESAKES = 10


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


def open_group(top: int) -> tuple[Group | None, dict[str, str]]:
    """The group of this process's functions, and why it lacks what it lacks. What dead gateways left is removed.

    `top` is the eldest process that is ours.
    """
    places, missing = find(top)
    remove_stale(places)
    if not places:
        return None, missing
    try:
        for folder in dict.fromkeys(places.values()):
            _make_room(folder)
        group = _own_group(places)
        group.share(os.cpu_count() or 1)
    except OSError as error:
        return None, dict.fromkeys(CONTROLLERS, f"a control group cannot be made: {error}")
    return group, missing


def _make_room(folder: Path) -> None:
    """In version 2: put our own processes into a group beside the functions', so that `folder` may have children."""
    if not (folder / "cgroup.type").exists():
        if (folder / "cgroup.subtree_control").exists():
            hand_down(folder)
        return
    own = folder / SERVER
    own.mkdir(exist_ok=True)
    for pid in (folder / "cgroup.procs").read_text().split():
        (own / "cgroup.procs").write_text(pid)
    hand_down(folder)


def _own_group(places: dict[str, Path]) -> Group:
    """A group that is claimed for as long as this process lives. Raises OSError."""
    for number in range(MOST_NAMESAKES):
        name = f"{PREFIX}{os.getpid()}" + (f".{number}" if number else "")
        group = Group({one: folder / name for one, folder in places.items()})
        claims = [_claim(folder / name) for folder in dict.fromkeys(places.values())]
        if None not in claims:
            return group  # the claims are never given up
        for claim in claims:
            if claim is not None:
                os.close(claim)
    raise OSError(f"every name from {PREFIX}{os.getpid()} on is taken")


def _claim(group: Path) -> int | None:
    """A lock that the system keeps while its holder lives, in whichever PID namespace; None where another has it."""
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(group).st_ino == os.fstat(fd).st_ino:  # or somebody has just removed it
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def remove_stale(places: dict[str, Path] | None = None) -> None:
    """Remove the groups of gateways that have ended without doing so."""
    for folder in dict.fromkeys((find()[0] if places is None else places).values()):
        for group in folder.glob(f"{PREFIX}*"):
            named = _GATEWAYS.fullmatch(group.name)
            # One of an earlier version holds no claim.
            if named and not _is_gateway(int(named[1])) and (claim := _claim(group)) is not None:
                remove(group)
                os.close(claim)


def _is_gateway(pid: int) -> bool:
    try:
        return b"lampyr.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
