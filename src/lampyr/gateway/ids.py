"""Invocation ids: sortable by time, unique across restarts and machines, cheap to make."""

from __future__ import annotations

import os
import time
from itertools import count


class Ids:
    """Ids of 24 characters: 11 of the millisecond, 7 of this process's own randomness, 6 of a counter (all hex)."""

    def __init__(self) -> None:
        self._process = os.urandom(4).hex()[:7]
        self._count = count(int.from_bytes(os.urandom(2), "big"))

    def new(self) -> str:
        return f"{int(time.time() * 1000):011x}{self._process}{next(self._count) & 0xFFFFFF:06x}"
