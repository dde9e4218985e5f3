"""What calls used: how old the figure for memory may be, and what is known of a process that has ended."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lampyr.node.meter import MEMORY_EVERY_S, MEMORY_WORTH_S, Meter, SharedMeter

GROWS = "import sys\nheld = b''\nfor line in sys.stdin:\n  held += b'x' * (8 << 20)\n  print(len(held), flush=True)"


def test_calls_that_end_together_share_one_look_at_memory() -> None:
    process = subprocess.Popen([sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    meter = SharedMeter(0.25)
    meter.watch(process.pid)

    def grow() -> None:
        process.stdin.write(b"\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        process.stdout.readline()  # type: ignore[union-attr]

    try:
        grow()
        now_s = 100.0
        first = meter.peak_kib(now_s - 60, now_s)
        assert first > 8 << 10
        grow()
        assert meter.peak_kib(now_s - 60, now_s + MEMORY_WORTH_S / 2) == first
        now_s += MEMORY_WORTH_S * 1.5
        assert meter.peak_kib(now_s - MEMORY_WORTH_S / 2, now_s) == first  # a call too short for a look of its own
        second = meter.peak_kib(now_s - 60, now_s)
        assert second >= first + (8 << 10)
        grow()
        now_s += MEMORY_EVERY_S * 1.5
        assert meter.peak_kib(now_s, now_s) >= second + (8 << 10)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(40)


@pytest.mark.skipif(sys.platform != "linux", reason="the clocks of other processes are Linux's")
@pytest.mark.parametrize("meter", [Meter(0.25), SharedMeter(0.25)], ids=["one", "shared"])
def test_what_a_process_had_used_is_known_when_it_has_ended(meter: Meter) -> None:
    """Its clock can be read while nobody has waited for it, and what it said is kept."""
    burns = "import time\ninput()\nuntil = time.process_time() + 0.1\nwhile time.process_time() < until: pass"
    process = subprocess.Popen([sys.executable, "-c", burns], stdin=subprocess.PIPE)
    assert process.stdin is not None
    meter.watch(process.pid)
    mark = meter.begin(0, 1.0)
    process.stdin.write(b"\n")
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    meter.note()
    process.wait()
    meter.note()
    assert meter.spent(mark, 1, 1.0, 2.0)[0] >= 100_000_000
