"""Whom the kernel has ended for memory, where instances end before they have been moved to groups of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lampyr.node import hierarchy
from lampyr.node.groups import Group
from lampyr.node.limits import AtOnce, Fence

pytestmark = pytest.mark.skipif("memory" not in hierarchy.find()[0], reason="no control group for memory here")

LITTLE_MIB = 48
BOMB = "import sys; sys.stdin.read()\nkeep = []\nwhile True: keep.append(b'x' * (1 << 20))"


class Late(AtOnce):
    """The thread that moves instances has not come to it."""

    def do(self, step: Callable[..., None], *arguments: Any, then: Callable[[], None] | None = None) -> None:
        if step.__name__ != "_take":
            super().do(step, *arguments, then=then)


@pytest.fixture
def fence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fence]:
    said: list[str] = []
    limits = Late(said.append)
    monkeypatch.setattr("lampyr.node.limits.IMPORT_SLACK_MIB", 0)
    fence = Fence(limits, "/x", "x", LITTLE_MIB, 0)
    yield fence
    fence.close()
    limits.close()
    assert not said


def bomb(fence: Fence, number: int | None = None) -> subprocess.Popen[bytes]:
    """A process that is admitted, and explodes when its stdin is closed."""
    process = subprocess.Popen([sys.executable, "-c", BOMB], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(process.pid)
    if number is None:
        fence.admit_snapshot(pidfd, lambda: None)
    else:
        group: Group | None = fence._snapshot
        assert group is not None
        group.enter(process.pid)  # it is forked there
        fence.admit(number, pidfd)
    os.close(pidfd)
    return process


def test_several_that_were_ended_together_have_all_met_their_limit(fence: Fence) -> None:
    snapshot = bomb(fence)
    fence.imported()
    instances = [bomb(fence, number) for number in range(3)]
    for one in instances:
        one.communicate(timeout=40)
        assert one.returncode == -9
    snapshot.kill()
    snapshot.communicate()
    assert [fence.out_of_memory(number) for number in range(4)] == [True, True, True, False]


def test_what_an_import_has_lost_is_no_instances_fault(fence: Fence) -> None:
    bomb(fence).communicate(timeout=40)
    assert fence.import_out_of_memory()
    fence.imported()
    assert not fence.out_of_memory(0)
