"""Hatches: the one way out of rooms without a network. Each is a socket of the broker's that listens inside a room.

The function's snapshot has made it before any code of the user's ran (runtime/sandbox.py). Who connects there is that
function, whatever it says: nobody else is in its network namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from itertools import count


def is_listening(fd: int) -> bool:
    """Whether it is a TCP socket that listens."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        return bool(sock.family == socket.AF_INET and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
    finally:
        sock.detach()


class Hatches:
    """Those of the snapshots that live. `told(number, route, fd)` hears of each, with fd -1 that it is gone."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, int]] = {}
        self._numbers = count(1)
        self.told: Callable[[int, str, int], None] | None = None

    def open(self, route: str, fd: int) -> int:
        """There is another, `fd`, which is ours from now on; returns its number."""
        number = next(self._numbers)
        self._open[number] = route, fd
        if self.told is not None:
            self.told(number, route, fd)
        return number

    def shut(self, number: int) -> None:
        """Its room is gone; as long as anybody has the socket, its network namespace stays."""
        route, fd = self._open.pop(number)
        os.close(fd)
        if self.told is not None:
            self.told(number, route, -1)

    def say_again(self) -> None:
        """Tell of all there are: whoever was told last has died."""
        for number, (route, fd) in self._open.items():
            if self.told is not None:
                self.told(number, route, fd)
