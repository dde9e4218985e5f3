"""What is known of a process by its number."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lampyr.node.processes import cpu_ticks, has_ended, wants_core
from lampyr.runtime import kernel


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_that_is_only_waited_for_has_ended() -> None:
    assert not has_ended(os.getpid()) and has_ended(-1)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    assert not has_ended(pid)
    os.close(writing)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, and stays one
    assert has_ended(pid)
    os.waitpid(pid, 0)
    assert has_ended(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_may_be_called_anything() -> None:
    """Whatever runs in a function may name itself; the gateway reads that name."""
    name = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    try:
        kernel.set_name(b") Z 1 \xff\n")
        assert not has_ended(os.getpid()) and wants_core(os.getpid()) and cpu_ticks(os.getpid())
    finally:
        kernel.set_name(name)
