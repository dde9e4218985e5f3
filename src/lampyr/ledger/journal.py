"""The journal: files that the gateway fills through memory and that whoever keeps the database reads behind it.

A record is one copy into a shared mapping (0.1 µs, no system call). From then on it belongs to the kernel, and no
`kill -9` of any process can take it back. The end of the machine can, for the seconds until the kernel has written it.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lampyr.ledger import records
from lampyr.ledger.records import KIND_AT, Record

SEGMENT_BYTES = 4 * 1024 * 1024
READ_BYTES = 256 * 1024
# A new segment is written in so many, all of them the same zeros.
PIECES = 64
# After a disk was full, how long until the next attempt.
RETRY_S = 5.0


class Journal:
    """The writing end: one process has it. `told` is called when something cannot be written, once for many.

    Whoever writes many records (gateway/metering.py) asks for their `place` in the `map` and fills that, kind last.
    """

    def __init__(self, folder: Path, told: Callable[[str], None], segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._told = told
        self._bytes = segment_bytes
        self.map: mmap.mmap = mmap.mmap(-1, mmap.PAGESIZE)
        self._at = self._end = 0
        self._lost = 0
        self._retry_s = 0.0
        self._origins: set[records.Origin] = set()
        self.write(records.started())

    def origin(self, origin: records.Origin) -> int:
        """The number of an origin, for rows."""
        if origin not in self._origins:
            self._origins.add(origin)
            self.write(records.known(origin))
        return origin.key

    def write(self, record: bytes) -> None:
        """Add a record; when this returns it survives the end of this process."""
        at = self.place(len(record))
        if at >= 0:
            self.map[at : at + len(record)] = record[:KIND_AT] + b"\0" + record[KIND_AT + 1 :]
            self.map[at + KIND_AT] = record[KIND_AT]

    def place(self, size: int) -> int:
        """Where in `map` the next record stands, which has this size; -1: nowhere, it is lost."""
        if self._at + size > self._end and not self._next():
            return -1
        at, self._at = self._at, self._at + size
        return at

    def _next(self) -> bool:
        """Go on in a new segment; False: there is none, and the record is lost."""
        if self._lost and time.monotonic() < self._retry_s:
            self._lost += 1
            return False
        try:
            self.map = _segment(self._folder, self._bytes)
        except OSError as error:
            self._at = self._end = 0
            self._retry_s = time.monotonic() + RETRY_S
            if not self._lost:
                self._told(f"error: the ledger cannot be written: {error}\nhint: free some space on its disk")
            self._lost += 1
            return False
        if self._lost:
            self._told(f"the ledger can be written again; {self._lost} records are lost")
            self._lost = 0
        self._at, self._end = 0, self._bytes
        return True


def _segment(folder: Path, size: int) -> mmap.mmap:
    """A new file of its full size: a disk that fills up later must not end us with SIGBUS in the middle of a write.

    It is written, not only allocated: 0.4 ms for 4 MiB, and the first use of its pages 0.1 ms then, where it was 2 ms.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name(max(numbers(folder), default=0) + 1)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.writev(fd, [bytes(-(-size // PIECES))] * PIECES) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return mmap.mmap(fd, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(fd)


class Position(NamedTuple):
    """How far a journal has been read."""

    segment: int = 0
    offset: int = 0


def read(folder: Path, position: Position) -> Iterator[tuple[list[Record], Position]]:
    """What was written behind `position`, in portions, each with where it ends.

    A segment that another one followed when we looked is not written to any more. Raises FileNotFoundError where one
    is removed meanwhile.
    """
    found_numbers = numbers(folder)
    if found_numbers and found_numbers[-1] < position.segment:
        position = Position()  # somebody has emptied the folder
    for segment in [number for number in found_numbers if number >= position.segment]:
        offset = position.offset if segment == position.segment else 0
        while True:
            found, length = records.read(_portion(folder / name(segment), offset))
            if not found:
                break
            offset += length
            yield found, Position(segment, offset)


def _portion(file: Path, offset: int) -> bytes:
    """Opened for each: where `read` is compiled and its caller stops early, nothing would close the file."""
    with open(file, "rb", buffering=0) as opened:
        return os.pread(opened.fileno(), READ_BYTES, offset)


def forget(folder: Path, position: Position) -> None:
    """Remove the segments that nobody needs any more: all that is in them is behind us, and nothing follows in them."""
    for number in numbers(folder):
        if number < position.segment:
            (folder / name(number)).unlink(missing_ok=True)


def numbers(folder: Path) -> list[int]:
    """The segments there are, eldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(one[:-8]) for one in names if one.endswith(".journal") and one[:-8].isdigit())


def name(number: int) -> str:
    return f"{number:09}.journal"
