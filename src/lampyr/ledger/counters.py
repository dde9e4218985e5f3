"""What of each budget is used: numbers in a mapped file, so that they are exact and no `kill -9` sets them back."""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from struct import Struct

# A key's hash, then when its period began (seconds since 1970) and what is used of it.
_SLOT = Struct("<32sqd")
_VALUE = Struct("<qd")
_KEY_BYTES = 32
SLOTS = 4096


class Counters:
    """The numbers of one state directory. Where the file cannot be had they live as long as the process.

    Several processes may have them: each number is one process's to change and everybody's to read.
    """

    def __init__(self, file: Path, told: Callable[[str], None]) -> None:
        self._fd = -1
        try:
            self._fd, self._map = _mapped(file)
        except OSError as error:
            told(f"error: budgets cannot be kept in {file}: {error}; a restart will forget what is used of them")
            self._map = mmap.mmap(-1, SLOTS * _SLOT.size)

    def counter(self, *key: str) -> Counter:
        """The number of this key, 0 where it is new. A full file gives up the key whose period began first."""
        hashed = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).digest()
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_EX)  # two processes that look for a free place at once
        try:
            at = self._place(hashed)
        finally:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        return Counter(self._map, at + _KEY_BYTES)

    def _place(self, hashed: bytes) -> int:
        at = self._map.find(hashed)
        while at % _SLOT.size and at >= 0:  # by chance, across two others
            at = self._map.find(hashed, at + 1)
        if at < 0:
            # Places fill in their order and are never empty again.
            number = bisect.bisect_left(range(SLOTS), True, key=self._is_free)
            every = range(0, SLOTS * _SLOT.size, _SLOT.size)
            at = every[number] if number < SLOTS else min(every, key=self._begun)
            # As old as now, so that it is not the first to be given up; it begins anew with its first use.
            self._map[at : at + _SLOT.size] = _SLOT.pack(hashed, int(time.time()), 0.0)
        return at

    def _is_free(self, number: int) -> bool:
        return not any(self._map[number * _SLOT.size : number * _SLOT.size + _KEY_BYTES])

    def _begun(self, at: int) -> int:
        return int(_VALUE.unpack_from(self._map, at + _KEY_BYTES)[0])


class Counter:
    """One number; it begins again with each period. One process changes it, others may read it."""

    def __init__(self, numbers: mmap.mmap, at: int) -> None:
        self._map = numbers
        self._at = at

    def begun_s(self) -> int:
        """When the period began that is counted in."""
        return int(_VALUE.unpack_from(self._map, self._at)[0])

    def used(self, begin_s: int) -> float:
        """What is used in the period that began then.

        One that seems to lie ahead is this one too: a clock that was set back gives nobody what is spent already.
        """
        begun_s, used = _VALUE.unpack_from(self._map, self._at)
        return float(used) if begun_s >= begin_s else 0.0

    def add(self, begin_s: int, amount: float) -> None:
        """Use some: one copy of 16 bytes, which nothing can interrupt in the middle."""
        self._map[self._at : self._at + _VALUE.size] = _VALUE.pack(begin_s, self.used(begin_s) + amount)


def _mapped(file: Path) -> tuple[int, mmap.mmap]:
    """The open file, to lock it, and what is in it."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, SLOTS * _SLOT.size)
        else:
            os.ftruncate(fd, SLOTS * _SLOT.size)
        return fd, mmap.mmap(fd, SLOTS * _SLOT.size)
    except OSError:
        os.close(fd)
        raise
