"""Invocation ids: sortable by time, unique across restarts and machines, cheap to make."""

from __future__ import annotations

import os
from time import time
from typing import Final

# Of 12 bits each: found in a tenth of the time that formatting takes.
_HEX: Final = [f"{number:03x}" for number in range(0x1000)]


class Ids:
    """Ids of 24 characters: 11 of the millisecond, 7 of this process's own randomness, 6 of a counter (all hex)."""

    def __init__(self) -> None:
        self._process = os.urandom(4).hex()[:7]
        self._number = int.from_bytes(os.urandom(2), "big")
        self._now_ms = 0
        self._prefix = ""

    def new(self) -> str:
        now_ms = int(time() * 1000)
        if now_ms != self._now_ms:
            self._now_ms = now_ms
            self._prefix = f"{now_ms:011x}{self._process}"
        number = self._number
        self._number = (number + 1) & 0xFFFFFF
        return self._prefix + _HEX[number >> 12] + _HEX[number & 0xFFF]
