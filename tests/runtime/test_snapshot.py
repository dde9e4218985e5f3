"""What is made before a fork and what after it."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from lampyr.runtime import wire
from lampyr.runtime.instance import Instance, bare_loop
from lampyr.runtime.program import Program
from lampyr.runtime.rehearsal import rehearse


async def _handler(request: object) -> str:
    await asyncio.sleep(0)
    return str(os.getpid())


HEAD = [b"0", b"GET", b"http://localhost", b"/", b"", b"", b"127.0.0.1", b"10.000", b"", b"host", b"localhost"]


def test_loops_made_before_the_fork_share_nothing_after_it() -> None:
    """Two children of one prepared instance: each answers its own request and is woken by its own threads alone."""
    prepared = Instance(Program("route.py", {"GET": _handler}, None, 1))
    ends: list[tuple[socket.socket, int]] = []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for end, _ in ends:
                end.close()
            prepared.serve(theirs)
        theirs.close()
        ends.append((ours, pid))
    for ours, pid in ends:
        ours.settimeout(40)
        ours.send(wire.head_frame(1, wire.REQUEST_WHOLE, HEAD))
        data = b""
        while str(pid).encode() not in data:
            data += (piece := ours.recv(65536))
            assert piece, data
    for ours, pid in ends:
        ours.close()
        assert os.waitpid(pid, 0)[1] == 0
    prepared.settle()
    prepared.loop.close()


def test_an_instance_that_has_not_begun_has_no_descriptors() -> None:
    """It is in a snapshot, and its loop in the process that all functions' snapshots are forked from."""
    before = set(os.listdir("/proc/self/fd"))
    prepared = Instance(Program("route.py", {"GET": _handler}, None, 1))
    assert set(os.listdir("/proc/self/fd")) == before
    prepared.settle()
    prepared.loop.close()


def test_a_function_that_wants_its_loop_debugged_has_that(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = bare_loop()
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    prepared = Instance(Program("route.py", {"GET": _handler}, None, 1), loop)
    assert prepared.loop is loop and loop.get_debug()
    prepared.settle()
    loop.close()


def test_a_rehearsal_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    rehearse()
    assert (set(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before
