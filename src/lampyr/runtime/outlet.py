"""Where the chunks of one response leave, as far as its client has room for them; without a frame where compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lampyr.runtime import wire

if TYPE_CHECKING:
    from lampyr.runtime.invocation import Host


class Outlet:
    """`credit` is what the client has room for, in bytes; what was sent beyond it is below 0."""

    __slots__ = ("_instance", "_stream", "credit")

    def __init__(self, instance: Host, stream: int) -> None:
        self._instance: Any = instance
        self._stream = stream
        self.credit = wire.WINDOW_BYTES

    def put(self, data: bytes) -> bool:
        """Send a chunk, which may be empty, without waiting; False where there is no room, or it is too large."""
        size = len(data)
        if self.credit <= 0 or size > wire.WINDOW_BYTES:
            return False
        self.credit -= size
        self._instance.send_now(wire.HEADER.pack(size, self._stream, wire.CHUNK) + data)
        return True

    def take(self, chunk: object) -> bool:
        """Send text or bytes as `put` does, nothing where they are empty; False for all else, and broken text."""
        if isinstance(chunk, bytes):
            data = chunk
        elif isinstance(chunk, str):
            try:
                data = chunk.encode()
            except UnicodeEncodeError:
                return False
        else:
            return False
        return not data or self.put(data)
