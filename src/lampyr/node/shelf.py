"""Which snapshots stay in memory: the latest used, as many as fit."""

from __future__ import annotations

import os
from typing import Protocol

MIB = 1024 * 1024


class Kept(Protocol):
    """A snapshot; `needed` while something of it runs or is about to."""

    @property
    def needed(self) -> bool: ...
    def let_go(self) -> None: ...


class Shelf:
    """Lets go of the snapshots that nobody has used for longest when all together own more than `most_bytes`."""

    def __init__(self, most_bytes: int | None = None) -> None:
        self.most_bytes = most_bytes if most_bytes is not None else _quarter_of_memory()
        self._own_bytes: dict[Kept, int] = {}  # longest unused first

    def put(self, one: Kept, own_bytes: int) -> None:
        """A snapshot is ready and has so much memory that it shares with nobody."""
        self._own_bytes[one] = own_bytes
        self._fit(one)

    def used(self, one: Kept) -> None:
        """Somebody needs it now."""
        if one in self._own_bytes:
            self._own_bytes[one] = self._own_bytes.pop(one)

    def drop(self, one: Kept) -> None:
        """It is gone."""
        self._own_bytes.pop(one, None)

    def _fit(self, newest: Kept) -> None:
        total = sum(self._own_bytes.values())
        for one in list(self._own_bytes):
            if total <= self.most_bytes:
                return
            if one is not newest and not one.needed:
                total -= self._own_bytes.pop(one)
                one.let_go()


def _quarter_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
