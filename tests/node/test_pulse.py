"""Who is taken for dead: not who works, and not who answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lampyr.node.pulse import ASK_EVERY_S, SILENT_S, WORKING_S, Pulse


@pytest.fixture
def idle() -> Iterator[int]:
    """A process that does nothing."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that works, whether it has a core or shares one."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process.pid
        process.kill()


def lives(pid: int, until_s: float, *, answers: bool = False, slow_s: float = 0.0) -> float:
    """When the pulse has given up on it, by a clock that stands at each look for `slow_s`."""
    asked: list[float] = []
    pulse = Pulse(pid, lambda: asked.append(0.0), 0.0)
    now_s = 0.0
    while now_s < until_s:
        subprocess.run(["sleep", str(slow_s)], check=True)
        now_s = pulse.next_s
        if not pulse.look(now_s):
            assert len(asked) == 1
            return now_s
        if answers:
            pulse.heard(now_s)
    return until_s


def test_who_neither_answers_nor_works_is_dead(idle: int) -> None:
    assert ASK_EVERY_S + SILENT_S <= lives(idle, 100.0) <= ASK_EVERY_S + SILENT_S + 1


def test_who_answers_lives(idle: int) -> None:
    assert lives(idle, 100.0, answers=True) == 100.0


def test_who_works_may_take_longer_but_not_for_ever(busy: int) -> None:
    assert WORKING_S <= lives(busy, 100.0, slow_s=0.05) <= ASK_EVERY_S + WORKING_S + 1


def test_who_is_stopped_is_dead(busy: int) -> None:
    os.kill(busy, signal.SIGSTOP)
    assert lives(busy, 100.0) <= ASK_EVERY_S + SILENT_S + 1
