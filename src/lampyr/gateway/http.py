"""The front door: HTTP/1.0 and 1.1 connections, strictly read, one exchange after another, bounded in size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from lampyr.gateway import answers, head, tcp, timing
from lampyr.gateway.chunks import Chunks
from lampyr.gateway.connections import LINGER_S, Connections
from lampyr.gateway.exchange import Exchange, Receiver
from lampyr.gateway.heads import Heads
from lampyr.gateway.sized import Sized

if TYPE_CHECKING:
    from lampyr.gateway.loops import Maker

__all__ = ["Connection", "Connections", "Exchange", "Receiver"]

WRITE_BUFFER_BYTES = 64 * 1024
# Requests that a client sends ahead wait here; more of them wait in its own socket.
MAX_AHEAD_BYTES = 64 * 1024
# Requests of one client that are served before others get their turn.
MAX_TURN = 16

_ALLOW = (b"allow", ", ".join(head.METHODS.values()).encode())


class Connection(asyncio.Protocol):
    """One client. `serve(exchange)` is called when a head, and what came of its body with it, has been read.

    Between requests `_exchange` is None; at the end either `_lingering` (answered, more of the client's bytes are read
    and forgotten until it has seen the answer) or `_closing` (closed once what was written is delivered).
    """

    __slots__ = (
        "_body",
        "_body_paused",
        "_buffer",
        "_closing",
        "_exchange",
        "_heads",
        "_linger_until_s",
        "_lingering",
        "_loop",
        "_new_id",
        "_pending_bytes",
        "_reading",
        "_refused",
        "_serve",
        "_stalled_s",
        "_transport",
        "_used",
        "_working",
        "due_s",
        "http_1_0",
        "inside",
        "keep_alive",
        "maker",
        "paused",
        "peer",
        "registry",
        "watched",
        "write",
    )

    def __init__(self, serve: Callable[[Exchange], None], new_id: Callable[[], str], registry: Connections) -> None:
        self._serve = serve
        self._new_id = new_id
        self.registry = registry
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self._exchange: Exchange | None = None
        self._buffer = b""  # a head that is not complete, or requests that must wait
        self._heads = Heads()
        self._body: Chunks | Sized | None = None  # of the current request, while some of it has not come
        self._body_paused = False
        self._used = False  # for a request
        self._refused = False
        self._reading = True
        self._working = False
        self._lingering = False
        self._closing = False
        self._linger_until_s = 0.0
        self._pending_bytes = 0  # not taken by the client when last looked at
        self._stalled_s = 0.0  # since when it takes nothing
        self.peer = ""
        self.inside = False  # whether the client is on this machine, until it is known to be no function
        self.maker: Maker | None = None
        self.http_1_0 = False
        self.keep_alive = True
        self.paused = False  # the client does not read what was written
        self.watched = False  # wants to be looked at in every sweep
        self.due_s = 0.0  # when the client will have taken too long with what it is at

    # --- the transport's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are not registered as asyncio.Transport
        self.write = self._transport.write  # uvloop sends without delay (TCP_NODELAY) what one turn of the loop wrote
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else ""
        self.inside = tcp.from_inside(transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.due_s = monotonic() + self.registry.head_timeout_s
        self.registry.add(self, self._loop)
        if self.registry.overrun:
            self._transport.abort()
        elif self.registry.full:
            self._refuse("FUNCTION_THROTTLED", "The server has as many connections as it may have.")

    def data_received(self, data: bytes) -> None:
        try:
            if self._exchange is not None and self._body is not None:
                self._take_body(self._exchange, self._body, data)
            elif self._lingering:
                self.due_s = min(monotonic() + self.registry.linger_timeout_s, self._linger_until_s)
            elif not self._closing:
                self._buffer = self._buffer + data if self._buffer else data
                if self._exchange is None:
                    self._work()
                elif len(self._buffer) > MAX_AHEAD_BYTES:
                    self._mind_reading()
        except Exception as error:
            self._failed(error)

    def eof_received(self) -> bool:
        # Whoever closes its half while a request is being served has left (nginx sees it so): most have closed both.
        self._lost()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self.registry.remove(self)
        self._lost()

    def pause_writing(self) -> None:
        self.paused = True
        self._watch_writing()

    def resume_writing(self) -> None:
        self.paused = False
        self.watched = not self._reading or self._closing
        if self._exchange is None:
            self._work()
        elif self._exchange.receiver is not None:
            self._exchange.receiver.drained()

    # --- requests

    def _work(self) -> None:
        """Serve what the buffer holds, one request after another; not from within itself."""
        if self._working:
            return
        self._working = True
        try:
            turns = MAX_TURN
            while self._exchange is None and self._buffer and not self._ending and not self.paused:
                if not turns:
                    self._loop.call_soon(self._work)
                    break
                turns -= 1
                if not self._next():
                    break
        except head.Refusal as refusal:
            self._refuse(refusal.code, refusal.message)
        finally:
            self._working = False
        if not self._reading or len(self._buffer) > MAX_AHEAD_BYTES:
            self._mind_reading()

    @property
    def _ending(self) -> bool:
        return self._lingering or self._closing

    def _next(self) -> bool:
        """Begin the next request; False where its head has not come completely. Raises Refusal."""
        heads = self._heads
        if self._buffer[0] == 0x0D and (rest := heads.skip_line(self._buffer)) is not None:
            skipped, self._buffer = len(rest) < len(self._buffer), rest
            return skipped
        taken = heads.take(self._buffer)
        if taken is not None:
            self._begin(*taken)
            return True
        if not heads.begun:
            self.due_s = monotonic() + self.registry.head_timeout_s
        heads.begin(self._buffer)
        return False

    def _begin(self, request: head.Head, rest: bytes) -> None:
        """Have a request served, or refused where its body is broken already."""
        now = monotonic()
        self._used = True
        self.http_1_0 = request.http_1_0
        self.keep_alive = request.keep_alive
        exchange = Exchange(self, request, self._new_id(), now)
        length = request.length
        if length is not None and length <= len(rest):
            exchange.complete = True
            if length:
                exchange.body, rest = rest[:length], rest[length:]
            self._buffer = rest
            self.due_s = inf
        else:
            self._buffer = b""
            self._body = body = Chunks() if length is None else Sized(length)
            try:
                exchange.body, self._buffer = self._decode(body, rest)
            except head.Refusal as refusal:
                self._refuse(refusal.code, refusal.message, exchange)
                return
            exchange.complete = body.done
            exchange.waits = request.expects_continue and not body.done and not rest
            self.due_s = inf if exchange.complete else now + self.registry.body_timeout_s
        self._exchange = exchange
        if exchange.target == "*":
            exchange.answer(204, [_ALLOW, timing.NONE], b"")
            return
        self._serve(exchange)

    def _decode(self, body: Chunks | Sized, data: bytes) -> tuple[bytes, bytes]:
        """Split bytes into body and what lies behind it. Raises Refusal."""
        pieces = body.feed(data)
        if body.done:
            self._body = None
        return pieces

    def _take_body(self, exchange: Exchange, body: Chunks | Sized, data: bytes) -> None:
        try:
            piece, self._buffer = self._decode(body, data)
        except head.Refusal as refusal:
            self._break_off(exchange, refusal.code, refusal.message)
            return
        if not self._body_paused:
            self.due_s = monotonic() + self.registry.body_timeout_s if self._body is not None else inf
        receiver = exchange.receiver
        if receiver is None:
            exchange.body += piece
            exchange.complete = self._body is None
            if len(exchange.body) > MAX_AHEAD_BYTES:
                self.pause_body()
        else:
            if piece:
                receiver.body(piece)
            if self._body is None and not exchange.over:
                exchange.complete = True
                receiver.body_end()
        if len(self._buffer) > MAX_AHEAD_BYTES:
            self._mind_reading()

    def _break_off(self, exchange: Exchange, code: str, message: str | None) -> None:
        """A request that cannot go on: whoever serves it sees its client leave, and the client a refusal or a cut."""
        if exchange.begun:
            exchange.cut()
        self._exchange = None
        exchange.over = True
        if not exchange.begun:
            self._refuse(code, message, exchange)
        if exchange.receiver is not None:
            exchange.receiver.left()

    # --- what exchanges do

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Address and port of the client, and our own."""
        return tcp.ends(self._transport)

    @property
    def authority(self) -> str:
        """What stands for the host of a request that names none, as one of HTTP/1.0 may (RFC 9112 3.3)."""
        address, port = self.ends[1]
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def stays_open(self) -> bool:
        """Whether another request may follow this response; not after a body that nobody reads to its end."""
        self.keep_alive = self.keep_alive and not self.registry.draining and self._body is None
        return self.keep_alive

    def answered(self) -> None:
        """The response is complete."""
        self._exchange = None
        self._body_paused = False
        if self.keep_alive and self._body is None:
            self.due_s = monotonic() + self.registry.idle_timeout_s
            if not self._working and (self._buffer or not self._reading):
                self._work()
        elif self._body is not None or self._buffer or self._refused or not self._reading:
            self._linger()
        else:
            self._close()

    def cut(self, *, reset: bool) -> None:
        """Close in the middle of a response: `reset` where a plain end would look like a whole one."""
        self._exchange = None
        if reset:
            tcp.reset_on_close(self._transport)
        self._close()

    def pause_body(self) -> None:
        """Read nothing more of the current request's body, nor hold its silence against the client."""
        if self._body is not None:
            self._body_paused = True
            self.due_s = inf
            self._mind_reading()

    def resume_body(self) -> None:
        """Read the current request's body again."""
        if self._body_paused:
            self._body_paused = False
            if self._body is not None:
                self.due_s = monotonic() + self.registry.body_timeout_s
            self._mind_reading()

    def _mind_reading(self) -> None:
        """Read exactly while there is room for what is read."""
        if self._closing:
            return
        reading = self._lingering or not (self._body_paused or len(self._buffer) > MAX_AHEAD_BYTES)
        if reading != self._reading:
            self._reading = reading
            self.watched = not reading or self.paused
            self._transport.resume_reading() if reading else self._transport.pause_reading()

    # --- time

    def look(self, now: float) -> None:
        """Called in sweeps: when something is due, and always while `watched`."""
        if self.paused or self._closing:
            self._look_at_writing(now)
        if now >= self.due_s:
            self._overdue()
        elif not self._reading and self._exchange is not None and tcp.has_hung_up(self._transport):
            self._lost()
            self._close()

    def _watch_writing(self) -> None:
        self.watched = True
        self._pending_bytes = self._transport.get_write_buffer_size()
        self._stalled_s = monotonic()

    def _look_at_writing(self, now: float) -> None:
        """A client that takes nothing for a minute is gone, even if it says nothing."""
        pending = self._transport.get_write_buffer_size()
        if pending < self._pending_bytes:
            self._stalled_s = now
        self._pending_bytes = pending
        if now - self._stalled_s >= self.registry.write_timeout_s:
            self._lost()
            self._transport.abort()

    def _overdue(self) -> None:
        """The client took too long with what it was at."""
        exchange = self._exchange
        if self._lingering:
            self._transport.abort()
        elif exchange is not None:
            self._break_off(exchange, "REQUEST_TIMEOUT", "The body of the request stopped arriving.")
        elif self._buffer or not self._used:
            self._refuse("REQUEST_TIMEOUT", "The head of the request did not arrive in time.")
        else:
            self._close()

    # --- endings

    def drain(self) -> None:
        """Close behind the response under way, whose head may have left; now unless a request has begun to arrive."""
        if self._exchange is not None:
            self.keep_alive = False
        elif not self._buffer and not self._ending:
            self._close()

    def _lost(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.over = True
            if exchange.receiver is not None:
                exchange.receiver.left()

    def _failed(self, error: Exception) -> None:
        """A fault of our own must not take the client's answer away, nor the process."""
        exchange = self._exchange
        whose = f" with request {exchange.id}" if exchange is not None else ""
        context = {"message": f"the front door failed{whose}", "exception": error, "protocol": self}
        self._loop.call_exception_handler(context)
        if exchange is not None:
            self._break_off(exchange, "INTERNAL_ERROR", None)
        elif not self._ending:
            self._close()

    def _refuse(self, code: str, message: str | None, exchange: Exchange | None = None) -> None:
        """Answer what cannot be served, and end the connection: where the next request begins is anybody's guess."""
        self._refused = True
        self.keep_alive = False
        method = exchange.method if exchange is not None else "HEAD" if self._buffer[:5] == b"HEAD " else "GET"
        id = exchange.id if exchange is not None else self._new_id()
        retry = [(b"retry-after", b"1")] if code == "FUNCTION_THROTTLED" else []
        status, headers, body = answers.error(code, message, id, *retry, timing.NONE)
        self._tell_refusal(status, exchange, id)
        refusal = head.Head(method, "", [], "", False, False, 0, False, b"", b"")
        Exchange(self, refusal, id, 0.0).answer(status, headers, body)

    def _tell_refusal(self, status: int, exchange: Exchange | None, id: str) -> None:
        """A line in the log, unless whoever serves the exchange writes one."""
        if exchange is None:
            method, path = head.glimpse(self._buffer)
            now = monotonic()
            self.registry.refused(method, path, status, min(now, self.due_s - self.registry.head_timeout_s), id)
        elif exchange.receiver is None:
            path = exchange.target.partition("?")[0]
            self.registry.refused(exchange.method, path, status, exchange.started, id)

    def _linger(self) -> None:
        """Read on and forget it for a while: a reset would take the answer away from a client that is still sending."""
        self._lingering = True
        self._buffer = b""
        self._body = None
        self.registry.lingering.add(self)
        now = monotonic()
        self.due_s = now + self.registry.linger_timeout_s
        self._linger_until_s = now + LINGER_S
        if not self._transport.is_closing():
            self._mind_reading()
            self._transport.write_eof()

    def _close(self) -> None:
        self._closing = True
        self._buffer = b""
        self.due_s = inf
        self._watch_writing()
        self._transport.close()
