"""One request and its response, as whoever serves it sees them."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lampyr.gateway.answers import Headers
from lampyr.gateway.head import TOKEN, Head

if TYPE_CHECKING:
    from lampyr.gateway.http import Connection
    from lampyr.node.caller import Caller

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_BODY = frozenset((204, 304))
_TOKEN = re.compile(TOKEN)
# Where a response ends is for the front door to say.
_FRAMING = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_OURS = frozenset((b"content-length", b"date", b"x-lampyr-id"))
# Header names come from handlers, so what is remembered about them has a bound: 64 KiB.
_MAX_NAMES = 1024
_MAX_NAME_BYTES = 64


class Lines(NamedTuple):
    """Status line and headers of a response, checked and joined; `date` and `length` are those the headers gave."""

    status: int
    text: bytes
    date: bytes
    length: int | None


def joined(status: int, headers: Headers) -> bytes:
    """Status line and headers of an answer of our own, as they are sent."""
    return b"\r\n".join([_STATUS_LINES[status], *[name + b": " + value for name, value in headers]])


class Receiver(Protocol):
    """Whoever serves an exchange: told of its body and its client. Nothing follows `left` or the response's end."""

    def body(self, piece: bytes) -> None:
        """More of the request body."""

    def body_end(self) -> None:
        """The body is complete."""

    def left(self) -> None:
        """The client is gone, its body is broken, or nothing more of the body came for 60 s."""

    def drained(self) -> None:
        """The client reads again after `writable` was False."""


class Exchange:
    """One request and its response: either `answer`, or `start`, `write`... and `end`.

    After the client has left, or the response has ended, all of these do nothing. Body that arrives before there is a
    `receiver` is added to `body`. A ValueError means that a header cannot be sent; nothing was sent then.
    """

    __slots__ = (
        "_chunked",
        "_head_unsent",
        "_left_bytes",
        "_silent",
        "begun",
        "body",
        "complete",
        "connection",
        "content_length",
        "fields",
        "headers",
        "host",
        "id",
        "id_bytes",
        "method",
        "over",
        "parent",
        "receiver",
        "started",
        "target",
        "upgrade",
        "waits",
    )

    def __init__(self, connection: Connection, request: Head, id: str, started: float) -> None:
        self.connection = connection
        self.id = id
        self.id_bytes = id.encode()  # as it stands in heads and records
        # As written, names in lower case; `target` in origin form, or "*" (RFC 9112 3.2).
        self.method, self.target, self.headers, self.host, _, _, self.content_length, _, self.fields, self.upgrade = (
            request
        )
        self.started = started  # when the head was complete, by time.monotonic()
        self.body = b""  # what came along with the head
        self.complete = False  # whether `body` is all of it
        self.waits = False  # for an invitation, with its body
        self.receiver: Receiver | None = None
        self.begun = False  # the response's head was written
        self.over = False  # the response has ended, or the client has left
        self.parent: Caller | None = None  # the call that has made this request, where the loop guard has to know it
        self._chunked = False
        self._head_unsent = b""  # leaves with the first piece
        self._silent = False  # HEAD, 204, 304: nothing may follow the head
        self._left_bytes: int | None = None  # of an announced body

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Address and port of the TCP peer, and our own."""
        return self.connection.ends

    @property
    def writable(self) -> bool:
        """False while the client does not read what was written."""
        return not self.connection.paused

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the whole response. Content-length is set; the body of HEAD, 204 and 304 is dropped."""
        if not self.over:
            self.answer_with(self.lines(status, headers), b"", body)

    def answer_with(self, lines: Lines, more: bytes, body: bytes) -> None:
        """The same with headers that are known to be good already; `more` are lines of our own, each led by CRLF."""
        if self.over:
            return
        if self.method == "HEAD" or lines.status in _NO_BODY:
            head = self._head(lines, more, len(body) or None)
        else:
            head = self._head(lines, more, len(body)) + body
        self.begun = self.over = True
        self.connection.write(head)
        self.connection.answered()

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin a response of `length` bytes; None takes what `headers` announce, or else ends it by framing.

        The head leaves with whatever follows: a packet more costs us 8 µs, and the client as much.
        """
        if self.over or self.begun:
            return
        self._head_unsent = self._head(self.lines(status, headers), b"", length, streamed=True)
        self.begun = True

    def write(self, piece: bytes) -> None:
        """Send a piece of the body, which may be empty, at once. More than was announced ends the response, broken."""
        if self.over:
            return
        if self._silent or not piece:
            piece = b""
        elif self._chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        elif self._left_bytes is not None:
            if len(piece) > self._left_bytes:
                self.cut()
                return
            self._left_bytes -= len(piece)
        self._send(piece)

    def _send(self, data: bytes) -> None:
        if self._head_unsent:
            data, self._head_unsent = self._head_unsent + data, b""
        if data:
            self.connection.write(data)

    def end(self) -> bool:
        """The body is complete. False for less than was announced, which ends the response visibly broken."""
        if self.over:
            return True
        if self._left_bytes or not self.begun:
            self.cut()
            return False
        self.over = True
        self._send(b"0\r\n\r\n" if self._chunked else b"")
        self.connection.answered()
        return True

    def cut(self) -> None:
        """End the response so that the client sees that something is missing; what was written is still delivered.

        Where a plain end would look like a whole response (HTTP/1.0, or all bytes are sent) the connection is reset.
        """
        if self.over:
            return
        self.over = True
        self._send(b"")
        self.connection.cut(reset=self.begun and not self._chunked and not self._left_bytes)

    def invite(self) -> None:
        """The body is wanted: a client that waits with it (`waits`, Expect: 100-continue) may send it."""
        if self.waits and not self.begun and not self.over:
            self.waits = False
            self.connection.write(_CONTINUE)

    def pause_body(self) -> None:
        """Let the client wait with the rest of its body."""
        if not self.over:
            self.connection.pause_body()

    def resume_body(self) -> None:
        """Take more of the body."""
        if not self.over:
            self.connection.resume_body()

    def lines(self, status: int, headers: Headers) -> Lines:
        """Check a response's headers. Raises ValueError."""
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
        good, date, announced = self.connection.registry.header_names, b"", None
        for name, value in headers:
            if name not in good and _check(name, good) in _OURS:
                if name == b"content-length":
                    announced = _announced(value)
                elif name == b"date":
                    date = value
            else:
                lines.append(name + b": " + value)
        text = b"\r\n".join(lines)
        # One look at all values: a line end inside one would begin a header, or a response, of the handler's making.
        ends = len(lines) - 1
        if text.count(b"\n") != ends or text.count(b"\r") != ends or b"\0" in text or b"\n" in date or b"\r" in date:
            raise ValueError("a header holds a line end or NUL")
        return Lines(status, text, b"date: %b\r\n" % date if date else b"", announced)

    def _head(self, lines: Lines, more: bytes, length: int | None, streamed: bool = False) -> bytes:
        """The response's head; decides how its body ends."""
        connection = self.connection
        status, text, date, announced = lines
        if length is None:
            length = announced
        framing = b""
        if status == 204:
            self._silent = True
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        if streamed:
            framing = self._frame(status, length) or framing
        if not connection.stays_open():
            framing += b"connection: close\r\n"
        elif connection.http_1_0:
            framing += b"connection: keep-alive\r\n"
        date = date or connection.registry.date
        return b"%b%b\r\nx-lampyr-id: %b\r\n%b%b\r\n" % (text, more, self.id_bytes, date, framing)

    def _frame(self, status: int, length: int | None) -> bytes:
        self._silent = self.method == "HEAD" or status in _NO_BODY
        if self._silent:
            return b""
        if length is not None:
            self._left_bytes = length
            return b""
        if self.connection.http_1_0:
            self.connection.keep_alive = False
            return b""
        self._chunked = True
        return b"transfer-encoding: chunked\r\n"


def _check(name: bytes, good: set[bytes]) -> bytes:
    """A header name in lower case, once it is known to be one. Raises ValueError."""
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError("a header's name is not a token")
    if lower in _FRAMING or (lower in _OURS and name != lower):
        raise ValueError(f"the header {lower.decode()} is not for handlers to set")
    if lower not in _OURS and len(good) < _MAX_NAMES and len(name) <= _MAX_NAME_BYTES:
        good.add(name)
    return lower


def _announced(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) < 19 else None
