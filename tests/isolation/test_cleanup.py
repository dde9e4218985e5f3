"""Nothing is left behind: no control group, no mount, no process, whichever way the server ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from serving import Server, ended, until, write

from lampyr.node import hierarchy

needs = pytest.mark.needs
PROJECT = {"app/hello/route.py": "def GET(): return 'hello'\n"}


def groups(server: Server) -> list[Path]:
    """The control groups of a running server's functions."""
    gateway = server.find("lampyr.gateway").pid
    return [folder / f"lampyr-{gateway}" for folder in hierarchy.find()[0].values()]


def served(root: Path) -> Server:
    write(root, PROJECT)
    server = Server(root, "start")
    assert server.get("/hello").body == b"hello"
    return server


@needs("memory")
def test_a_server_that_stops_leaves_no_group_and_no_mount(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    server = served(tmp_path / "project")
    made = groups(server)
    assert all(group.is_dir() for group in made) and Path("/proc/self/mountinfo").read_text() == mounts
    assert server.stop() == 0
    assert not any(group.exists() for group in made)


@needs("memory")
def test_an_instance_that_ends_takes_its_group_along(tmp_path: Path) -> None:
    write(tmp_path / "project", {"app/hello/route.py": "idle_timeout = 0\ndef GET(): return 'hello'\n"})
    server = Server(tmp_path / "project", "start")
    assert server.get("/hello").body == b"hello"
    [function] = [one for one in groups(server)[0].iterdir() if one.is_dir()]
    until(lambda: [one.name for one in function.iterdir() if one.is_dir()] == ["snapshot"], "the group to be gone")
    assert server.stop() == 0


@pytest.mark.alone  # whatever server starts meanwhile removes it, too
@needs("memory")
def test_what_a_killed_server_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    server = served(tmp_path / "project")
    made, below = groups(server), server.processes()
    server.process.kill()
    server.stop()
    until(lambda: all(ended(one) for one in below), "everything to end")
    assert any(group.exists() for group in made)
    served(tmp_path / "other").stop()
    assert not any(group.exists() for group in made)


@needs("memory")
def test_a_killed_gateways_groups_are_removed_by_the_next_one(tmp_path: Path) -> None:
    server = served(tmp_path / "project")
    made = groups(server)
    gateway = server.find("lampyr.gateway")
    os.kill(gateway.pid, 9)
    until(lambda: ended(gateway), "the gateway to be dead")
    until(lambda: not any(group.exists() for group in made), "its groups to be removed")
    until(lambda: answers(server), "the next gateway")
    assert server.stop() == 0


def answers(server: Server) -> bool:
    try:
        return server.get("/hello").body == b"hello"
    except OSError:
        return False
