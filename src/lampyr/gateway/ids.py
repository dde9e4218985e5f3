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

        self._now_ms = 0
        self._prefix = ""

    def new(self) -> str:
        now_ms = int(time.time() * 1000)
        if now_ms != self._now_ms:
            self._now_ms = now_ms
            self._prefix = f"{now_ms:011x}{self._process}"
        return f"{self._prefix}{next(self._count) & 0xFFFFFF:06x}"
