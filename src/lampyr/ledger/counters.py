"""What of each budget is used: numbers in a mapped file, so that they are exact and no `kill -9` sets them back."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from struct import Struct

# A key's hash, then when its period began (seconds since 1970) and what is used of it.
_SLOT = Struct("<32sqd")
_VALUE = Struct("<qd")
_KEY_BYTES = 32
SLOTS = 4096


class Counters:
    """The numbers of one state directory. Where the file cannot be had they live as long as the process."""

    def __init__(self, file: Path, told: Callable[[str], None]) -> None:
        try:
            self._map = _mapped(file)
        except OSError as error:
            told(f"error: budgets cannot be kept in {file}: {error}; a restart will forget what is used of them")
            self._map = mmap.mmap(-1, SLOTS * _SLOT.size)
        keys = (bytes(self._map[at : at + _KEY_BYTES]) for at in range(0, SLOTS * _SLOT.size, _SLOT.size))
        self._places = {key: number for number, key in enumerate(keys) if any(key)}

    def counter(self, *key: str) -> Counter:
        """The number of this key, 0 where it is new. A full file gives up the key whose period began first."""
        hashed = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).digest()
        if hashed not in self._places:
            self._places[hashed] = number = self._free()
            at = number * _SLOT.size
            self._map[at : at + _SLOT.size] = _SLOT.pack(hashed, 0, 0.0)
        return Counter(self._map, self._places[hashed] * _SLOT.size + _KEY_BYTES)

    def _free(self) -> int:
        if len(self._places) < SLOTS:
            return len(self._places)
        begun = {
            key: _VALUE.unpack_from(self._map, at * _SLOT.size + _KEY_BYTES)[0] for key, at in self._places.items()
        }
        return self._places.pop(min(begun, key=begun.__getitem__))


class Counter:
    """One number; it begins again with each period."""

    def __init__(self, numbers: mmap.mmap, at: int) -> None:
        self._map = numbers
        self._at = at

    def used(self, begin_s: int) -> float:
        """What is used in the period that began then."""
        begun_s, used = _VALUE.unpack_from(self._map, self._at)
        return float(used) if begun_s == begin_s else 0.0

    def add(self, begin_s: int, amount: float) -> None:
        """Use some: one copy of 16 bytes, which nothing can interrupt in the middle."""
        self._map[self._at : self._at + _VALUE.size] = _VALUE.pack(begin_s, self.used(begin_s) + amount)


def _mapped(file: Path) -> mmap.mmap:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, SLOTS * _SLOT.size)
        else:
            os.ftruncate(fd, SLOTS * _SLOT.size)
        return mmap.mmap(fd, SLOTS * _SLOT.size)
    finally:
        os.close(fd)
