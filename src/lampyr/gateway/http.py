"""The front door: HTTP/1.0 and 1.1 connections, strictly read, one exchange after another, bounded in size and time."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic
from typing import Any, Protocol

from lampyr.gateway import answers, head
from lampyr.gateway.answers import Headers

HEAD_TIMEOUT_S = 15.0
BODY_TIMEOUT_S = 60.0
IDLE_TIMEOUT_S = 75.0
# A client that was answered before it had sent its whole body needs this long, at most, to notice.
LINGER_S = 5.0
SWEEP_S = 1.0
WRITE_BUFFER_BYTES = 64 * 1024
# Requests that a client sends ahead wait here; more of them wait in its own socket.
MAX_AHEAD_BYTES = 64 * 1024

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_BODY = frozenset((204, 304))


class Receiver(Protocol):
    """Whoever serves an exchange: told of its body and of the client. Nothing follows `left`."""

    def body(self, piece: bytes) -> None: ...
    def body_end(self) -> None: ...
    def left(self) -> None: ...
    def drained(self) -> None: ...


class Connections:
    """All open connections: their number, their time, and their end. `limit`: how many there may be."""

    def __init__(
        self,
        limit: int = 10_000,
        *,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        body_timeout_s: float = BODY_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self.limit = limit
        self.head_timeout_s = head_timeout_s
        self.body_timeout_s = body_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.open: set[Connection] = set()
        self.draining = False
        self.date = b""
        self._sweep_s = sweep_s
        self._sweeping = False

    def add(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.open.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self._sweep(loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a second: one timer for all connections instead of several for each request."""
        self.date = formatdate(usegmt=True).encode()
        now = monotonic()
        for connection in list(self.open):
            if now >= connection.due_s:
                connection.overdue()
        if self.open:
            loop.call_later(self._sweep_s, self._sweep, loop)
        else:
            self._sweeping = False

    def drain(self) -> None:
        """Let what runs finish; every answer from now on ends its connection."""
        self.draining = True
        for connection in list(self.open):
            connection.close_if_idle()


class Exchange:
    """One request and its response. See the module's `Receiver` for what its server is told."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_ended",
        "_left_bytes",
        "_silent",
        "_started",
        "body",
        "complete",
        "content_length",
        "headers",
        "host",
        "id",
        "method",
        "peer",
        "receiver",
        "started",
        "target",
    )

    def __init__(self, connection: Connection, request: head.Head, id: str, now: float) -> None:
        self._connection = connection
        self.id = id
        self.method, self.target, self.headers, self.host = request[:4]
        self.content_length = request.length
        self.peer = connection.peer
        self.started = now
        self.body = b""
        self.complete = False
        self.receiver: Receiver | None = None
        self._started = False
        self._ended = False
        self._chunked = False
        self._silent = False  # HEAD, 204, 304: nothing may follow the head
        self._left_bytes: int | None = None  # of an announced body

    @property
    def writable(self) -> bool:
        """False while the client does not read what was written."""
        return not self._connection.paused

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole response. Raises ValueError, and sends nothing, where a header cannot be sent."""
        length: int | None = len(body)
        if self.method == "HEAD" or status in _NO_BODY:
            length = _take_length(headers) if not body else length
            if status == 204:
                length = None
            body = b""
        else:
            _take_length(headers)
        lines = self._lines(status, headers)
        if length is not None:
            lines.append(b"content-length: %d" % length)
        data = self._head(lines)
        self._started = self._ended = True
        self._connection.write(data + body if body else data)
        self._connection.answered()

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        """The head of a response whose body follows; `length` where it is known. Raises ValueError as `answer` does."""
        announced = _take_length(headers)
        length = announced if length is None else length
        lines = self._lines(status, headers)
        self._silent = self.method == "HEAD" or status in _NO_BODY
        if length is not None and status != 204:
            lines.append(b"content-length: %d" % length)
            self._left_bytes = length
        elif not self._silent:
            self._chunked = not self._connection.http_1_0
            if self._chunked:
                lines.append(b"transfer-encoding: chunked")
            else:
                self._connection.keep_alive = False
        data = self._head(lines)
        self._started = True
        self._connection.write(data)

    def write(self, piece: bytes) -> None:
        """A piece of the body, sent at once. More than was announced is cut off, and the connection with it."""
        if self._ended or self._silent or not piece:
            return
        if self._chunked:
            self._connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            return
        if self._left_bytes is not None:
            if len(piece) > self._left_bytes:
                self.cut()
                return
            self._left_bytes -= len(piece)
        self._connection.write(piece)

    def end(self) -> None:
        """The body is complete."""
        if self._ended:
            return
        if self._left_bytes and not self._silent:
            self.cut()
            return
        self._ended = True
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self._connection.answered()

    def cut(self) -> None:
        """End it so that the client sees that something is missing; what was written is still delivered."""
        self._ended = True
        visible = self._chunked or self._left_bytes is not None
        self._connection.cut(reset=not visible)

    def pause_body(self) -> None:
        """Let the client wait with the rest of its body."""
        self._connection.pause_body()

    def resume_body(self) -> None:
        self._connection.resume_body()

    def _lines(self, status: int, headers: Headers) -> list[bytes]:
        connection = self._connection
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        lines = [line[:-2]]
        for name, value in headers:
            lines.append(name + b": " + value)
        lines.append(b"x-lampyr-id: " + self.id.encode())
        lines.append(b"date: " + connection.registry.date)
        if connection.must_close(self):
            connection.keep_alive = False
            lines.append(b"connection: close")
        elif connection.http_1_0:
            lines.append(b"connection: keep-alive")
        return lines

    def _head(self, lines: list[bytes]) -> bytes:
        data = b"\r\n".join(lines)
        # One look at all values: a line end inside one would begin a header, or a response, of the handler's making.
        ends = len(lines) - 1
        if data.count(b"\n") != ends or data.count(b"\r") != ends or b"\0" in data:
            raise ValueError("a header holds a line end or NUL")
        return data + b"\r\n\r\n"


def _take_length(headers: Headers) -> int | None:
    """Take content-length out of `headers`: there must be one idea of it."""
    found = None
    for index in range(len(headers) - 1, -1, -1):
        if headers[index][0] == b"content-length":
            value = headers.pop(index)[1]
            found = int(value) if value.isdigit() and len(value) < 19 else None
    return found


class Connection(asyncio.Protocol):
    """One client. `serve(exchange)` is called when a head, and what came of its body with it, has been read."""

    def __init__(
        self, serve: Callable[[Exchange], None], new_id: Callable[[], str], registry: Connections, trusted: Any = None
    ) -> None:
        self._serve = serve
        self._new_id = new_id
        self.registry = registry
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._chunks: head.Chunks | None = None
        self._left = 0  # bytes of an announced body that have not come
        self._wants_continue = False
        self._body_paused = False
        self._reading = True
        self._lingering = False
        self._working = False
        self._after_answer = False
        self.peer = ""
        self.keep_alive = True
        self.http_1_0 = False
        self.paused = False
        self.due_s = 0.0

    # --- the transport's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are not registered as asyncio.Transport
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else ""
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.due_s = monotonic() + self.registry.head_timeout_s
        self.registry.add(self, self._loop)
        if len(self.registry.open) > self.registry.limit:
            self._refuse("FUNCTION_THROTTLED", "The server has as many connections as it may have.")

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._exchange is not None and self._body_open():
            self._take_body(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._exchange is None:
            self._work()
        elif len(self._buffer) > MAX_AHEAD_BYTES:
            self._hold()

    def eof_received(self) -> bool:
        # Whoever closes its half while a request is being served has left (as nginx sees it); most have closed both.
        self._lost()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.registry.open.discard(self)
        self._lost()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._exchange is not None and self._exchange.receiver is not None:
            self._exchange.receiver.drained()

    def _lost(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not exchange._ended:
            exchange._ended = True
            if exchange.receiver is not None:
                exchange.receiver.left()

    # --- requests

    def _work(self) -> None:
        """Serve what the buffer holds, one request after another; not from within itself."""
        if self._working:
            return
        self._working = True
        try:
            while self._exchange is None and self._buffer and not self._lingering and self._next():
                pass
        except head.Refusal as refusal:
            self._refuse(refusal.code, refusal.message)
        finally:
            self._working = False
        if self._exchange is None and not self._reading and not self._lingering:
            self._reading = True
            self._transport.resume_reading()

    def _next(self) -> bool:
        """Begin the next request; False when its head has not come completely."""
        buffer = self._buffer
        if buffer[:2] == b"\r\n":  # RFC 9112 2.2: one empty line before a request is nobody's request
            self._buffer = buffer = buffer[2:]
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if buffer and buffer != b"\r":
                head.check_begun(buffer)
                if self.due_s - monotonic() > self.registry.head_timeout_s:
                    self.due_s = monotonic() + self.registry.head_timeout_s
            return False
        request = head.read(buffer[:end])
        rest = buffer[end + 4 :]
        now = monotonic()
        self.http_1_0 = request.http_1_0
        self.keep_alive = request.keep_alive
        self._wants_continue = request.expects_continue
        exchange = Exchange(self, request, self._new_id(), now)
        self.due_s = now + self.registry.body_timeout_s
        self._buffer = b""
        self._exchange = exchange
        if request.length == 0:
            exchange.complete = True
            self._buffer = rest
        else:
            self._left = request.length or 0
            self._chunks = head.Chunks() if request.length is None else None
            exchange.body, self._buffer = self._decode(rest)
            exchange.complete = not self._body_open()
        if exchange.complete:
            self.due_s = float("inf")
        if exchange.target == "*":
            allow = ", ".join(sorted(method.decode() for method in head.METHODS)).encode()
            exchange.answer(204, [(b"allow", allow), answers.NO_TIMING], b"")
            return True
        self._serve(exchange)
        if self._wants_continue and not exchange.complete and not exchange._started and self._exchange is exchange:
            self._transport.write(_CONTINUE)
        return True

    def _body_open(self) -> bool:
        return self._left > 0 or (self._chunks is not None and not self._chunks.done)

    def _decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Split bytes into body and what lies behind it. Raises Refusal."""
        if self._chunks is not None:
            return self._chunks.feed(data)
        piece = data[: self._left]
        self._left -= len(piece)
        return piece, data[len(piece) :]

    def _take_body(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        try:
            piece, rest = self._decode(data)
        except head.Refusal as refusal:
            self._break_off(exchange, refusal.code, refusal.message)
            return
        self._buffer += rest
        ended = not self._body_open()
        self.due_s = float("inf") if ended else monotonic() + self.registry.body_timeout_s
        receiver = exchange.receiver
        if receiver is not None and not exchange._ended:
            if piece:
                receiver.body(piece)
            if ended and not exchange._ended:
                exchange.complete = True
                receiver.body_end()

    def _break_off(self, exchange: Exchange, code: str, message: str | None) -> None:
        """The body cannot be read to its end: the server of the exchange sees its client leave."""
        self._exchange = None
        started, exchange._ended = exchange._started, True
        if exchange.receiver is not None:
            exchange.receiver.left()
        if started:
            self.cut(reset=False)
        else:
            self._refuse(code, message, exchange)

    # --- what exchanges do

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def must_close(self, exchange: Exchange) -> bool:
        """Whether this response ends the connection; an unread body makes it so, since nobody reads on."""
        return not self.keep_alive or self.registry.draining or self._body_open()

    def answered(self) -> None:
        """The response is complete."""
        self._exchange = None
        if self._body_open():
            self._linger()
        elif not self.keep_alive:
            self._transport.close()
        else:
            self._chunks = None
            self.due_s = monotonic() + self.registry.idle_timeout_s
            if self._buffer or not self._reading:
                self._work()

    def cut(self, *, reset: bool) -> None:
        """Close in the middle of a response: `reset` where a plain end would look like a complete one."""
        self._exchange = None
        if reset:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.close()

    def pause_body(self) -> None:
        self._body_paused = True
        self.due_s = float("inf")
        self._hold()

    def resume_body(self) -> None:
        if not self._body_paused:
            return
        self._body_paused = False
        if self._body_open():
            self.due_s = monotonic() + self.registry.body_timeout_s
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _hold(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    # --- endings

    def overdue(self) -> None:
        """The client took too long with what it had begun."""
        exchange = self._exchange
        if self._lingering or (exchange is None and not self._buffer):
            self._transport.abort() if self._lingering else self._transport.close()
            self.due_s = float("inf")
        elif exchange is None:
            self._refuse("REQUEST_TIMEOUT", "The head of the request did not arrive in time.")
        else:
            self._break_off(exchange, "REQUEST_TIMEOUT", "The body of the request stopped arriving.")

    def close_if_idle(self) -> None:
        if self._exchange is None and not self._lingering:
            self._transport.close()

    def _refuse(self, code: str, message: str | None, exchange: Exchange | None = None) -> None:
        """Answer what cannot be served, and end the connection: where the next request begins is anybody's guess."""
        id = exchange.id if exchange is not None else self._new_id()
        headers = [(b"retry-after", b"1")] if code == "FUNCTION_THROTTLED" else []
        status, fields, body = answers.error(code, message, id, *headers, answers.NO_TIMING)
        self._exchange = None
        self._buffer = b""
        lines = [_STATUS_LINES[status][:-2], *(name + b": " + value for name, value in fields)]
        lines += [b"x-lampyr-id: " + id.encode(), b"date: " + self.registry.date]
        lines += [b"content-length: %d" % len(body), b"connection: close"]
        silent = exchange is not None and exchange.method == "HEAD"
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if silent else body))
        self._linger()

    def _linger(self) -> None:
        """Read on and forget it for a moment: a reset would take the answer away from a client that is still sending."""
        self._lingering = True
        self._buffer = b""
        self.due_s = monotonic() + LINGER_S
        if self._transport.is_closing():
            return
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
