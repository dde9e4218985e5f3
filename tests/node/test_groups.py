"""Control groups of version 2, on the kernel's own tree where one is mounted that may be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from lampyr.node import hierarchy
from lampyr.node.groups import CONTROLLERS, Group, remove


def mounted() -> Path | None:
    """A version 2 tree in which groups can be made."""
    if sys.platform != "linux":
        return None
    found = [Path(mount) for kind, _, mount, _ in hierarchy._mounts() if kind == "cgroup2"]
    return next((one for one in found if os.access(one / "cgroup.procs", os.W_OK)), None)


TREE = mounted()
pytestmark = pytest.mark.skipif(TREE is None, reason="there is no tree of version 2 that may be written")


@pytest.fixture
def group() -> Iterator[Group]:
    assert TREE is not None
    group = Group(dict.fromkeys(CONTROLLERS, TREE / f"lampyr-test-{os.getpid()}"))
    yield group
    assert group.remove()


def members(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]


def test_a_process_is_put_into_a_group_and_ends_with_it(group: Group) -> None:
    assert TREE is not None
    folder = TREE / f"lampyr-test-{os.getpid()}" / "one"
    inner = group.within("one")
    with subprocess.Popen(["sleep", "60"]) as child:
        inner.enter(child.pid)
        assert members(folder) == [child.pid]
        assert inner.remove()
        assert child.wait(40) == -9
    assert not folder.exists()


def test_two_servers_may_remove_the_same_group_at_once(group: Group) -> None:
    """Each removes what dead gateways left, at its start and at its end."""
    assert TREE is not None
    for number in range(60):
        folders = [TREE / f"lampyr-test-{os.getpid()}" / f"{number}-{one}" for one in range(4)]
        for folder in folders:
            folder.mkdir()
        start = Barrier(3)

        def remove_all(start: Barrier = start, folders: list[Path] = folders) -> list[bool]:
            start.wait(40)
            return [remove(folder) for folder in folders]

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(remove_all) for _ in range(3)]:
                assert all(done.result())


def test_limits_are_what_the_kernel_then_says(group: Group) -> None:
    """Controllers that are bound to version 1 have no files here, and then nothing is made up."""
    assert TREE is not None
    folder = TREE / f"lampyr-test-{os.getpid()}" / "one"
    inner = group.within("one")
    offered = (folder / "cgroup.controllers").read_text().split()
    inner.hold(memory_mib=64, tasks=32)
    for controller, file, wanted in (("memory", "memory.max", str(64 << 20)), ("pids", "pids.max", "32")):
        assert (folder / file).exists() == (controller in offered)
        if controller in offered:
            assert (folder / file).read_text().strip() == wanted
    assert (inner.memory_kills(), inner.refused_tasks()) == (0, 0)


def test_a_controller_is_looked_for_where_it_is_bound() -> None:
    assert TREE is not None
    offered = (TREE / "cgroup.controllers").read_text().split()
    places, missing = hierarchy.find()
    assert set(places) | set(missing) == set(CONTROLLERS)
    for controller, folder in places.items():
        assert (folder.is_relative_to(TREE)) == (controller in offered), (controller, folder)


def test_a_group_is_its_holders_whatever_pid_that_has_there() -> None:
    """To us the number in its name means nobody: its gateway lives in another PID namespace."""
    assert TREE is not None
    folder = TREE / "lampyr-4194305"  # more than any pid can be
    folder.mkdir()
    holds = """if True:
        import pathlib, sys
        from lampyr.node import hierarchy
        print(hierarchy._claim(pathlib.Path(sys.argv[1])), flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", holds, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline().strip().isdigit()
        hierarchy.remove_stale({"memory": TREE})
        assert folder.exists() and hierarchy._claim(folder) is None
        holder.kill()
    hierarchy.remove_stale({"memory": TREE})
    assert not folder.exists()


def test_two_gateways_of_the_same_number_have_a_group_each() -> None:
    assert TREE is not None
    places = {"memory": TREE}
    names = [f"lampyr-{os.getpid()}", f"lampyr-{os.getpid()}.1"]
    try:
        for _ in names:
            hierarchy._own_group(places)
        assert all((TREE / name).is_dir() for name in names)
    finally:
        for name in names:
            remove(TREE / name)
