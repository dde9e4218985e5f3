"""Strict reading of a chunked body: extensions and trailers are checked and dropped (RFC 9112 7.1)."""

from __future__ import annotations

import re

from lampyr.gateway.head import TOKEN, bad

# A chunk's size with its extensions, and all trailers together: nobody honest needs more.
MAX_SIZE_LINE_BYTES = 1024
MAX_TRAILERS_BYTES = 8192

_EXTENSIONS = rb"(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb'|"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e])*+"))?)*+'
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})" + _EXTENSIONS)
_SIZE_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e]*+)?\r?)?")
_TRAILER = re.compile(TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+")
_TRAILER_BEGUN = re.compile(rb"(?:" + TOKEN + rb"(?::[^\x00-\x08\x0a-\x1f\x7f]*+)?)?\r?")

_NO_SIZE = "A chunk's size is malformed."
_TOO_LONG = "A chunk is longer than it says."
_NO_TRAILER = "A trailer is malformed."


class Chunks:
    """One chunked body. `done` once its last byte was read."""

    __slots__ = ("_left", "_pending", "_trailers_bytes", "done")

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0  # bytes of the current chunk and the CRLF behind it; 0: a line comes next
        self._trailers_bytes = -1  # so far; -1 before the last chunk
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; returns the body in them and, once `done`, what lies behind the body. Raises Refusal."""
        if self._pending:
            data = self._pending + data
            self._pending = b""
        pieces: list[bytes] = []
        position = 0
        while not self.done:
            if self._left:
                position = self._content(data, position, pieces)
                if self._left:
                    break
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._check_begun(data[position:])
                break
            line, position = data[position:end], end + 2
            if self._trailers_bytes < 0:
                self._size(line)
            else:
                self._trailer(line)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self.done:
            return body, data[position:]
        self._pending = data[position:]
        return body, b""

    def _content(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take what there is of the chunk and of the CRLF that must follow it."""
        size = self._left - 2
        if size > 0:
            piece = data[position : position + size]
            if piece:
                pieces.append(piece)
            position += len(piece)
            self._left -= len(piece)
        if self._left == 2:
            end = data[position : position + 2]
            if end == b"\r\n":
                self._left = 0
                position += 2
            elif end not in (b"", b"\r"):
                raise bad(_TOO_LONG)
        return position

    def _check_begun(self, line: bytes) -> None:
        """Look at a line that is not complete yet."""
        if self._trailers_bytes < 0:
            if len(line) > MAX_SIZE_LINE_BYTES + 1 or not _SIZE_BEGUN.fullmatch(line):
                raise bad(_NO_SIZE)
        elif len(line) + self._trailers_bytes > MAX_TRAILERS_BYTES or not _TRAILER_BEGUN.fullmatch(line):
            raise bad(_NO_TRAILER)

    def _size(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line) if len(line) <= MAX_SIZE_LINE_BYTES else None
        if size is None:
            raise bad(_NO_SIZE)
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailers_bytes = 0

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailers_bytes += len(line) + 2
        if self._trailers_bytes > MAX_TRAILERS_BYTES or not _TRAILER.fullmatch(line):
            raise bad(_NO_TRAILER)
