"""A body whose length was announced; `Chunks` is the other kind."""

from __future__ import annotations


class Sized:
    """One such body. `done` once its last byte was read."""

    __slots__ = ("_left_bytes", "done")

    def __init__(self, length: int) -> None:
        self._left_bytes = length
        self.done = not length

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; returns the body in them and what lies behind the body."""
        piece = data[: self._left_bytes]
        self._left_bytes -= len(piece)
        self.done = not self._left_bytes
        return piece, data[len(piece) :]
