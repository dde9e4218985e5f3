"""Which pages a process has made its own since it was forked, and having them made so before they are needed."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from resource import RUSAGE_SELF, getrusage

import pytest

from lampyr.node import touched

if sys.platform == "linux":
    from lampyr.runtime import kernel

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="for root, of another process")
PAGES = 512


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """Memory that a fork shares until somebody writes to it, all of it there."""
    memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = b"x" * len(memory)
    yield memory


def address(memory: mmap.mmap) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def forked_and_writing(memory: mmap.mmap, numbers: list[int]) -> tuple[int, int]:
    """A child that has written to these pages of `memory` and waits, and what ends it."""
    reader, writer = os.pipe()
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        for number in numbers:
            memory[number * mmap.PAGESIZE] = 0
        os.write(say, b".")
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.read(said, 1)
    os.close(said)
    os.close(say)
    return pid, writer


def test_one_that_maps_more_than_any_machine_has_costs_nothing() -> None:
    """Within the limits of a function's process: what grows downwards is no data."""
    grows_down, no_reserve = 0x100, 0x4000
    with mmap.mmap(-1, 1 << 38, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | grows_down | no_reserve):
        tracemalloc.start()
        told = touched.pages(os.getpid())
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (told, peak_bytes < 32 * 1024 * 1024) == (b"", True), peak_bytes


def test_what_has_been_written_to_is_told(memory: mmap.mmap) -> None:
    written = [0, 1, 2, 100, 300, 301, PAGES - 1]
    pid, writer = forked_and_writing(memory, written)
    start = address(memory)
    told = {
        page
        for first, length in struct.iter_unpack("QQ", touched.pages(pid))
        for page in range((first - start) // mmap.PAGESIZE, (first + length - start) // mmap.PAGESIZE)
    }
    os.close(writer)
    os.waitpid(pid, 0)
    assert [page for page in sorted(told) if 0 <= page < PAGES] == written


def test_of_a_process_that_is_gone_nothing_is(memory: mmap.mmap) -> None:
    pid, writer = forked_and_writing(memory, [])
    os.close(writer)
    os.waitpid(pid, 0)
    assert touched.pages(pid) == b""


def test_what_is_far_more_than_a_start_takes_is_not_told(memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched, "MOST_BYTES", 300 * mmap.PAGESIZE)
    pid, writer = forked_and_writing(memory, [*range(PAGES)])
    assert touched.pages(pid) == b""
    os.close(writer)
    os.waitpid(pid, 0)


def test_pages_that_are_there_already_are_no_faults_later(memory: mmap.mmap) -> None:
    start, reader, writer = address(memory), *os.pipe()
    pid = os.fork()
    if pid == 0:
        kernel.populate(start, len(memory) // 2)
        kernel.populate(1 << 44, mmap.PAGESIZE)  # where nothing is
        counts = [getrusage(RUSAGE_SELF).ru_minflt]
        for half in (0, len(memory) // 2):
            for at in range(half, half + len(memory) // 2, mmap.PAGESIZE):
                memory[at] = 0
            counts.append(getrusage(RUSAGE_SELF).ru_minflt)
        os.write(writer, struct.pack("3Q", *counts))
        os._exit(0)
    before, first, second = struct.unpack("3Q", os.read(reader, 24))
    os.waitpid(pid, 0)
    assert first - before < 50 and second - first >= PAGES // 2
