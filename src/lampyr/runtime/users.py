"""User ids for functions: one each, from a range that belongs to nobody else on the machine."""

from __future__ import annotations

import grp
import pwd
import zlib
from pathlib import Path

# Between what systems give to people and services (below 2**16), to containers (/etc/subuid, mostly below 2**30) and
# the ids that some programs take for negative numbers (from 2**31).
LOWEST, HIGHEST, RANGE = 1 << 30, 1 << 31, 1 << 16


class Users:
    """Gives each name its id. `seed` is what tells one server from another on the same machine."""

    def __init__(self, seed: str) -> None:
        self._first = _free_range(seed)
        self._of: dict[str, int] = {}

    @property
    def range(self) -> tuple[int, int]:
        """The first id and how many there are."""
        return self._first, RANGE

    def of(self, name: str) -> int:
        """The id of `name`, the same at every call."""
        return self._of.setdefault(name, self._first + len(self._of) % RANGE)


def _free_range(seed: str) -> int:
    """The first id of a range in which no user and no group is and which nobody has been promised."""
    ranges = (HIGHEST - LOWEST) // RANGE
    start = zlib.crc32(seed.encode())
    taken = _taken()
    for step in range(ranges):
        first = LOWEST + (start + step) % ranges * RANGE
        if not any(low < first + RANGE and first < low + count for low, count in taken):
            return first
    return LOWEST


def _taken() -> list[tuple[int, int]]:
    ids = [one.pw_uid for one in pwd.getpwall()] + [one.gr_gid for one in grp.getgrall()]
    taken = [(id, 1) for id in ids if id >= LOWEST]
    for file in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(file).read_text().splitlines()
        except OSError:
            continue
        fields = [line.split(":") for line in lines]
        taken += [(int(one[1]), int(one[2])) for one in fields if len(one) == 3 and one[1].isdigit()]
    return taken
