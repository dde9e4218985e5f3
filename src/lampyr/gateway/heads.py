"""The heads of one connection's requests, found one after another in what has come."""

from __future__ import annotations

from lampyr.gateway import head

# A head of up to this size is remembered: on a kept connection the next one is mostly the same, byte for byte (5 µs).
MAX_KNOWN_BYTES = 2048


class Heads:
    """`begun`: some of a head has come, and not all of it."""

    __slots__ = ("_known", "_known_bytes", "_seen_bytes", "_skipped_line", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._seen_bytes = 0  # of the head that has begun
        self._skipped_line = False
        self._known: head.Head | None = None  # the last one
        self._known_bytes = b""  # with its empty line

    def take(self, buffer: bytes) -> tuple[head.Head, bytes] | None:
        """The head at the beginning, and what lies behind it; None where it is not complete. Raises Refusal."""
        if self._known is not None and buffer.startswith(self._known_bytes):
            request, end = self._known, len(self._known_bytes)
        else:
            end = buffer.find(b"\r\n\r\n", max(self._seen_bytes - 3, 0)) + 4
            if end < 4:
                return None
            request = head.read(buffer, end - 4)
            if end <= MAX_KNOWN_BYTES:
                self._known, self._known_bytes = request, buffer[:end]
        self._seen_bytes = 0
        self.begun = self._skipped_line = False
        return request, buffer[end:]

    def begin(self, buffer: bytes) -> None:
        """Look at the beginning of a head, and wait for more of it. Raises Refusal for what will never be one."""
        self.begun = True
        head.check_begun(buffer, self._seen_bytes)
        self._seen_bytes = len(buffer)

    def skip_line(self, buffer: bytes) -> bytes | None:
        """What follows an empty line in front of a request (RFC 9112 2.2: nobody's), None where there is none.

        One is skipped. Of a line that has come by half nothing is skipped yet.
        """
        if self._skipped_line or buffer[:2] not in (b"\r\n", b"\r"):
            return None
        self._skipped_line = len(buffer) > 1
        return buffer[2:] if self._skipped_line else buffer
