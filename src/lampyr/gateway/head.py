"""Strict reading of a request: the head, and chunked bodies. What could mean two things is refused (RFC 9112).

One reader of our own instead of a check in front of another parser: two parsers that read the same bytes can disagree,
and smuggled requests live in that gap. Pure: bytes in, values out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
MAX_LINE_BYTES = 8192
MAX_HEADERS = 100
MAX_HEADERS_BYTES = 32 * 1024

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
# The whole of a head in one look: request line and fields, lines ended by CRLF, no folding, no space before a colon, no
# control character but the tab inside a value (1.3 µs; what follows can then trust the shape of every line).
_HEAD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++) ([^\x00-\x20\x7f#]++) HTTP/1\.([01])"
    rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+)*+"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
# A chunk's size with its extensions, and a trailer's line: nobody honest needs more.
_MAX_CHUNK_LINE_BYTES = 1024
_MAX_TRAILERS_BYTES = 8192


class Refusal(Exception):
    """The request cannot be read: `code` of SPEC 3, and a sentence that holds nothing of the request."""

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Head(NamedTuple):
    """A request head. `target` in origin form or "*"; `length` None where the body is chunked."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    host: str
    http_1_0: bool
    keep_alive: bool
    length: int | None
    expects_continue: bool


def _bad(message: str) -> Refusal:
    return Refusal("BAD_REQUEST", message)


def check_begun(data: bytes) -> None:
    """Refuse a head that is not complete yet but already wrong or too long. Raises Refusal."""
    end = data.find(b"\r\n")
    if (end if end >= 0 else len(data)) > MAX_LINE_BYTES:
        raise Refusal("URL_TOO_LONG")
    if end >= 0 and len(data) - end > MAX_HEADERS_BYTES + 4:
        raise Refusal("REQUEST_HEADER_TOO_LARGE")
    if not _TOKEN.match(data):
        raise _bad("The request does not begin with a method; is this HTTP/1.1?")
    if _BARE_LINE_END.search(data):
        raise _bad("Lines of a request end in CRLF.")


# Names as clients write them → lower case; bounded, since clients choose them.
_NAMES: dict[bytes, bytes] = {}
_MAX_NAMES = 512


def _lower(written: bytes) -> bytes:
    name = written.lower()
    if len(_NAMES) < _MAX_NAMES:
        _NAMES[written] = name
    return name


def read(data: bytes) -> Head:
    """Read a head without its empty line. Raises Refusal."""
    lines = data.split(b"\r\n")
    if len(lines[0]) > MAX_LINE_BYTES:
        raise Refusal("URL_TOO_LONG")
    if len(lines) > MAX_HEADERS + 1 or len(data) - len(lines[0]) > MAX_HEADERS_BYTES + 2:
        raise Refusal("REQUEST_HEADER_TOO_LARGE")
    shape = _HEAD.fullmatch(data)
    if shape is None:
        raise _bad("The request line or a header is malformed.")
    method, target, minor = shape.groups()
    if method not in METHODS:
        raise _bad("The method is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.")
    headers = []
    framing: dict[bytes, bytes] = {}
    del lines[0]
    for field in lines:
        written, _, value = field.partition(b":")
        name = _NAMES.get(written) or _lower(written)
        value = value.strip(b" \t")
        headers.append((name, value))
        if name in _FRAMING:
            if name in framing:
                if name in _ONCE:
                    raise _bad(f"The header {name.decode()} stands there twice.")
                value = framing[name] + b"," + value
            framing[name] = value
    return _framed(method, target, minor == b"0", headers, framing)


_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
_FRAMING = _ONCE | {b"connection"}


def _framed(
    method: bytes, target: bytes, http_1_0: bool, headers: list[tuple[bytes, bytes]], framing: dict[bytes, bytes]
) -> Head:
    host = framing.get(b"host")
    if host is None and not http_1_0:
        raise _bad("HTTP/1.1 needs a Host header.")
    if host is not None and not _HOST.fullmatch(host):
        raise _bad("The Host header is malformed.")
    target, host = _origin(method, target, host or b"")
    connection = framing.get(b"connection", b"").lower()
    options = {option.strip() for option in connection.split(b",")} if connection else ()
    keep_alive = b"close" not in options and (not http_1_0 or b"keep-alive" in options)
    expect = framing.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Refusal("EXPECTATION_FAILED")
    return Head(
        method.decode(),
        target.decode("latin-1"),
        headers,
        host.decode("latin-1"),
        http_1_0,
        keep_alive,
        _length(framing, http_1_0),
        expect is not None and not http_1_0,
    )


def _origin(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """The target in origin form and the host it is for; absolute form wins over Host (RFC 9112 3.2.2)."""
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return target, host
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1] or not _HOST.fullmatch(absolute[1]):
        raise _bad("The request target is malformed.")
    rest = absolute[2]
    return (rest if rest[:1] == b"/" else b"/" + rest), absolute[1]


def _length(framing: dict[bytes, bytes], http_1_0: bool) -> int | None:
    """The announced length of the body, None for chunked (RFC 9112 6)."""
    encoding = framing.get(b"transfer-encoding")
    length = framing.get(b"content-length")
    if encoding is not None:
        if length is not None:
            raise _bad("Content-Length and Transfer-Encoding stand there together.")
        if http_1_0 or encoding.lower() != b"chunked":
            raise _bad("The only transfer encoding is chunked, in HTTP/1.1.")
        return None
    if length is None:
        return 0
    if not _DIGITS.fullmatch(length):
        raise _bad("Content-Length is not a number.")
    return int(length)


class Chunks:
    """Reads a chunked body; extensions and trailers are checked and dropped (RFC 9112 7.1)."""

    __slots__ = ("_left", "_pending", "_trailers", "done")

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0  # of the current chunk, with its CRLF; 0: a size line comes next
        self._trailers: int | None = None  # bytes of trailers so far, once the last chunk has come
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; returns the body in them and, once `done`, what lies behind the body. Raises Refusal."""
        data = self._pending + data if self._pending else data
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
                self._check_pending(data[position:])
                break
            line, position = data[position:end], end + 2
            if self._trailers is not None:
                self._trailer(line)
            else:
                self._size(line)
        if self.done:
            return b"".join(pieces), data[position:]
        self._pending = data[position:]
        return b"".join(pieces), b""

    def _content(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take what there is of the chunk; its two last bytes must be CRLF."""
        body = self._left - 2
        if body > 0:
            piece = data[position : position + body]
            pieces.append(piece)
            position += len(piece)
            self._left -= len(piece)
        if self._left == 2 and len(data) - position >= 2:
            if data[position : position + 2] != b"\r\n":
                raise _bad("A chunk is longer than it says.")
            self._left = 0
            position += 2
        elif self._left == 2 and data[position : position + 1] not in (b"", b"\r"):
            raise _bad("A chunk is longer than it says.")
        return position

    def _check_pending(self, line: bytes) -> None:
        limit = _MAX_CHUNK_LINE_BYTES if self._trailers is None else _MAX_TRAILERS_BYTES
        if len(line) > limit or b"\n" in line or b"\r" in line[:-1]:
            raise _bad("A chunk's size line is malformed.")

    def _size(self, line: bytes) -> None:
        size = _CHUNK_SIZE.fullmatch(line) if len(line) <= _MAX_CHUNK_LINE_BYTES else None
        if size is None:
            raise _bad("A chunk's size line is malformed.")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> None:
        assert self._trailers is not None
        if not line:
            self.done = True
            return
        self._trailers += len(line) + 2
        name, colon, _ = line.partition(b":")
        if self._trailers > _MAX_TRAILERS_BYTES or not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(line):
            raise _bad("A trailer is malformed.")
