"""One invocation on its way through the gateway: waiting, running, answering, over."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from lampyr.gateway import answers, compression
from lampyr.node.instance import CRASHED, OUT_OF_MEMORY
from lampyr.node.watch import BLOCKED, REPLACED_AFTER_S
from lampyr.runtime import wire

if TYPE_CHECKING:
    from lampyr.core.masking import Masker
    from lampyr.gateway.exchange import Exchange, Lines
    from lampyr.gateway.site import Site
    from lampyr.node.instance import Instance
    from lampyr.node.pool import Pool

# What a cancelled handler may take: its `finally` runs, then its process is ended.
DEADLINE_GRACE_S = 0.05
LEFT_GRACE_S = 1.0
# A handler that is still there after this part of the grace does not listen; its stack is asked for from outside.
STACK_AFTER_S = 0.02
STACK_LATEST_S = 0.05
# Credit goes back to an instance in portions, so that a stream of small chunks costs few frames.
CREDIT_BYTES = 32 * 1024

# uvloop's clock has whole milliseconds and may be as much behind: without this a deadline comes 0.2 ms early.
CLOCK_S = 0.001
# A request of up to this size, with its head, travels in one packet, and so may wait in an instance's socket.
BRIEF_BYTES = 16 * 1024
# Heads of responses that are remembered for each deployment: at most 1 MiB of them.
MAX_KNOWN_HEADS = 1024
MAX_KNOWN_BYTES = 1024

# Framing is the gateway's business; a handler's own idea of it is dropped (RFC 9112 6, 9.6).
FRAMING = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection", b"te"})


class Call:
    """A `Receiver` for its exchange and a `Caller` for its instance.

    `outcome` is the word of SPEC 6: ok, error, timeout, crashed, client_closed, throttled.
    """

    __slots__ = (
        "_body_left",
        "_book",
        "_booked",
        "_complete",
        "_credit",
        "_deadline",
        "_encoder",
        "_first_s",
        "_grace",
        "_has_after",
        "_masking",
        "_owed",
        "_responded_s",
        "_returned",
        "_site",
        "_stack",
        "_started",
        "_stream",
        "_target",
        "_window",
        "begun_s",
        "brief",
        "bytes_in",
        "bytes_out",
        "cold",
        "depth",
        "exchange",
        "id",
        "inner",
        "instance",
        "mark",
        "open",
        "outcome",
        "parent",
        "pool",
        "spared",
        "status",
    )

    def __init__(self, site: Site, pool: Pool, exchange: Exchange, target: bytes, depth: int) -> None:
        self._site = site
        self.pool = pool
        self._book = site.books[pool.function.route]
        self.exchange = exchange
        self._target = target  # fields ID to IP of the request's frame (runtime/wire.py), joined
        self.id = exchange.id
        self.instance: Instance | None = None
        self.depth = depth  # of functions that call one another
        self.inner = 0  # calls made by it that are not over, as far as somebody had to know
        self.parent = exchange.parent
        if self.parent is not None:
            self.parent.inner += 1
        site.crowd.inside += 1
        self.begun_s = 0.0
        self.cold = False
        self.open = True  # the client still waits for (more of) an answer
        self.outcome = "ok"
        self.status = 0
        self.bytes_in = len(exchange.body)
        self.bytes_out = 0
        self._complete = exchange.complete
        self.brief = self._complete and len(target) + len(exchange.fields) + self.bytes_in <= BRIEF_BYTES
        self._returned = False
        self._responded_s = 0.0  # when the last frame of its response came, where `after` has work to do
        self.spared = False
        self._booked = 0  # rows of the ledger: 1 it is open, 2 it is closed
        self.mark = (0, 0.0)  # what its instance had used when it began
        self._stream = 0
        self._started = False
        self._first_s = 0.0  # when the first byte of a streamed body left
        self._has_after = False
        self._encoder: compression.Encoder | None = None
        self._masking = site.masker.stream() if site.masker else None
        self._window = wire.WINDOW_BYTES - self.bytes_in  # what the instance lets us send of the body
        self._body_left: list[bytes] = []  # arrived while the call waited for an instance
        self._credit = wire.WINDOW_BYTES  # what we let the instance send
        self._owed = 0  # sent by the instance, read by the client, not yet credited
        self._grace: asyncio.TimerHandle | None = None
        self._stack: asyncio.TimerHandle | None = None
        settings = pool.function.settings
        limit_s = settings.max_duration if settings.runtime == "standard" else settings.first_byte_timeout
        if settings.max_duration is not None and (limit_s is None or settings.max_duration < limit_s):
            limit_s = settings.max_duration
        if limit_s is None:
            self._deadline = None
        else:
            self._deadline = pool.loop.call_later(limit_s + CLOCK_S, self._expire, limit_s)

    @property
    def masker(self) -> Masker:
        """What hides this deployment's secrets."""
        return self._site.masker

    @property
    def after_s(self) -> float | None:
        """How long what `after` was given has been running; None where there is nothing."""
        return monotonic() - self._responded_s if self._responded_s else None

    # --- towards the instance (Caller and Receiver)

    def begin(self, instance: Instance) -> None:
        """There is an instance: send it the request."""
        exchange = self.exchange
        self.instance = instance
        self.begun_s = monotonic()
        ready_s = instance.forked_s + instance.init_ms / 1000
        self.cold = instance.served == 0 and ready_s >= exchange.started  # it had to wait for this very instance
        body, whole = exchange.body, self._complete
        if self._body_left:
            body = b"".join([body, *self._body_left])
        settings = self.pool.function.settings
        deadline = b""
        if settings.max_duration is not None:
            left_s = settings.max_duration - (self.begun_s - exchange.started)
            deadline = b"%.3f" % max(left_s, 0.0)
        if not self._booked:
            self._booked = 1
            self._book.open(self)
        self.mark = instance.meter.begin(len(instance.running), self.begun_s)
        kind = wire.REQUEST_WHOLE if whole else wire.REQUEST
        fields = [self._target, deadline, b""]
        if exchange.fields:
            fields.append(exchange.fields)
        self._stream = instance.begin(self, kind, fields, body)

    def body(self, piece: bytes) -> None:
        self.bytes_in += len(piece)
        if self.bytes_in > self.pool.function.settings.max_body:
            self._refuse_body()
            return
        if self.instance is None:
            self._body_left.append(piece)
        else:
            self.instance.send(wire.frame(self._stream, wire.BODY, piece))
        self._window -= len(piece)
        if self._window <= 0:
            self.exchange.pause_body()

    def body_end(self) -> None:
        self._complete = True
        if self.instance is not None:
            self.instance.send(wire.frame(self._stream, wire.BODY_END))

    def _refuse_body(self) -> None:
        limit = self.pool.function.settings.max_body
        self._give_up("error", "client", LEFT_GRACE_S)
        self._answer_error("FUNCTION_PAYLOAD_TOO_LARGE", f"This function accepts bodies of up to {limit} bytes.")
        self._over()

    def more_body(self, count: int) -> None:
        """The instance has read some of the body."""
        if self._window <= 0 < self._window + count and self.open:
            self.exchange.resume_body()
        self._window = min(self._window + count, wire.WINDOW_BYTES)  # whatever the instance says

    def left(self) -> None:
        """The client is gone: nothing more is written, and the handler is cancelled unless it wants to go on."""
        if not self.open:
            return
        self.open = False
        self.outcome = "client_closed"
        if self.instance is None:
            self.pool.abandon(self)
            self._over()
        elif self.pool.function.settings.on_disconnect == "cancel":
            self._cancel(b"client", LEFT_GRACE_S)
        else:
            self._owe(0)  # nobody reads any more, so nothing holds the handler back

    def drained(self) -> None:
        """The client reads again."""
        if self._owed and self.open:
            self._owe(0)

    # --- towards the client (Caller)

    def refused(self, code: str, failure: dict[str, object] | None = None) -> None:
        """There will be no instance for this call."""
        self.outcome = "throttled" if code == "FUNCTION_THROTTLED" else "error"
        more = {"traceback": failure["traceback"]} if failure and self._site.shows_tracebacks else {}
        headers = [(b"retry-after", b"1")] if code == "FUNCTION_THROTTLED" else []
        self._answer_error(code, None, *headers, **more)
        self._over()

    def answer(self, head: bytes, body: bytes) -> None:
        """The whole response in one frame."""
        if not self.open or self._started:
            self._responded()
            return
        mask = self._site.masker
        try:
            if mask:
                body = mask.mask(body)
            if len(body) >= compression.WORTH_BYTES:
                lines, body = self._compressed(head, body)
            else:
                lines = self._site.known_heads.get(head) or self._learn(head)
        except ValueError as error:
            self._nonsense(str(error))
            self._responded()
            return
        self.status = lines.status
        self.bytes_out = len(body)
        timing = b"\r\nserver-timing: " + self._timing((monotonic() - self.begun_s) * 1000)
        self._booked = 2
        self._book.close(self)
        self.exchange.answer_with(lines, timing, body)
        self.open = False
        if self._has_after and self.instance is not None:
            self.mark = self.instance.meter.mark()
        self._responded()

    def _compressed(self, head: bytes, body: bytes) -> tuple[Lines, bytes]:
        """A body that is worth it, compressed where the client asked for that. Raises ValueError."""
        status, headers = self._read_head(head.split(b"\0"))
        body = compression.compress(self._accepted(), status, headers, body)
        return self.exchange.lines(status, headers), body

    def _learn(self, head: bytes) -> Lines:
        """Check and mask a head; functions mostly answer with the same one (4 µs). Raises ValueError."""
        lines = self.exchange.lines(*self._read_head(head.split(b"\0")))
        if len(head) <= MAX_KNOWN_BYTES:
            known = self._site.known_heads
            if len(known) >= MAX_KNOWN_HEADS:
                known.clear()
            known[head] = lines
        return lines

    def head(self, fields: list[bytes]) -> None:
        """The head of a streamed response."""
        if not self.open or self._started:
            return
        try:
            status, headers = self._read_head(fields)
            self._encoder = compression.choose(self._accepted(), status, headers)
            if self._encoder is not None:
                self._encoder.add_headers(headers)
            elif self._masking is not None:  # a masked body has another length
                headers = [header for header in headers if header[0] != b"content-length"]
            headers.append((b"server-timing", self._timing(None)))
            self.status = status
            self.exchange.start(status, headers)
        except ValueError as error:
            self._nonsense(str(error))
            self._give_up("error", "client", LEFT_GRACE_S)
            return
        self._started = True
        if self.pool.function.settings.runtime == "edge" and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            limit_s = self.pool.function.settings.max_duration
            if limit_s is not None:
                left_s = limit_s - (monotonic() - self.exchange.started)
                self._deadline = self.pool.loop.call_later(max(left_s, 0.0), self._expire, limit_s)

    def chunk(self, data: bytes) -> None:
        """A piece of a streamed response: to the client at once."""
        size = len(data)
        self._credit -= size
        if self._credit < -wire.WINDOW_BYTES:
            assert self.instance is not None
            self.instance.kill("it sent more than its window allows")
            return
        if self.open and self._started:
            if self._masking is not None:
                data = self._masking.feed(data)
            if self._encoder is not None and data:
                data = self._encoder.feed(data)
            if data:
                if not self._first_s:
                    self._first_s = monotonic()
                self.bytes_out += len(data)
                self.exchange.write(data)
            if not self.exchange.writable:
                self._owed += size
                return
        self._owe(size)

    def _owe(self, size: int) -> None:
        self._owed += size
        if self._owed >= CREDIT_BYTES or (size == 0 and self._owed):
            assert self.instance is not None
            self._credit += self._owed
            self.instance.send(wire.frame(self._stream, wire.CREDIT, self._owed.to_bytes(4, "big")))
            self._owed = 0

    def end(self) -> None:
        """The streamed response is complete."""
        if self.open and self._started:
            rest = self._masking.end() if self._masking is not None else b""
            if self._encoder is not None:
                rest = (self._encoder.feed(rest) if rest else b"") + self._encoder.end()
            if rest:
                self.bytes_out += len(rest)
                self.exchange.write(rest)
            self.open = False
            self._close_row()
            self.exchange.end()
        self._responded()

    def fail(self, kind: str, text: str) -> None:
        """The handler failed; `text` is for the log, but for a bad request, where it is for the client."""
        if kind == "bad_request" and self.open and not self._started:
            self.outcome = "error"
            self._answer_error("BAD_REQUEST", self._masked_text(text))
        elif kind != "cancelled":
            self.outcome = "error" if self.open else self.outcome
            self._site.log.failure(self, text)
            code = "FUNCTION_OUT_OF_MEMORY" if kind == "memory" else "FUNCTION_INVOCATION_FAILED"
            more = {"traceback": self._masked_text(text)} if self._site.shows_tracebacks else {}
            self._answer_error(code, None, **more)
        else:
            self._answer_error("FUNCTION_INVOCATION_FAILED", None)
        self._responded()

    def lost(self, why: str) -> None:
        """The process has ended before the response was complete."""
        if self.outcome == "ok" or self._responded_s:
            if self.outcome == "ok":
                self.outcome = "timeout" if why == BLOCKED else "crashed"
            if self.instance is not None and why == CRASHED:
                self.instance.ask_status(partial(self._site.log.crash, self))
            else:
                self._site.log.ended(self, why)
        if why == BLOCKED:
            more = {"limit": "event_loop", "limit_ms": round(REPLACED_AFTER_S * 1000), "elapsed_ms": self._elapsed_ms()}
            self._answer_error("EDGE_FUNCTION_INVOCATION_TIMEOUT", f"The function was ended: {BLOCKED}.", **more)
        self._answer_error("FUNCTION_OUT_OF_MEMORY" if why == OUT_OF_MEMORY else "FUNCTION_CRASHED", None)
        if self._booked < 2:
            self._close_row()
        self.instance = None
        self._over()

    def returned(self) -> None:
        """The instance has not begun with this call and will not: another one is needed, and no more waiting there."""
        self.instance = None
        self.brief = False
        if self._grace is not None:
            self._grace.cancel()
        if self._stack is not None:
            self._stack.cancel()
        if not self.open:
            self._over()
        elif self._returned:
            self.lost("it ended before it had read the request")
        else:
            self._returned = True
            self.pool.lease(self)

    def after(self) -> None:
        """The response that follows leaves work to do; the stream stays until `done`."""
        self._has_after = True

    def done(self) -> None:
        self._ensure_answered()
        self._over()

    # --- endings

    def _responded(self) -> None:
        """Nothing more comes for the client. What the handler left to run gets a deadline of its own."""
        self._ensure_answered()
        if not self._has_after:
            self._over()
            return
        if self._responded_s:
            assert self.instance is not None
            self.instance.kill("it answered a request twice")
            return
        self._responded_s = monotonic()
        self._stop_timers()
        limit_s = self.pool.function.settings.max_duration
        if limit_s is not None:
            self._deadline = self.pool.loop.call_later(limit_s, self._expire_after)

    def _ensure_answered(self) -> None:
        """No client waits for an instance that ends a response which it has not begun, or begins a second one."""
        if self.open:
            self.outcome = "error"
            self._answer_error("FUNCTION_INVOCATION_FAILED", None)

    def _expire_after(self) -> None:
        self.outcome = "timeout" if self.outcome == "ok" else self.outcome
        self._cancel(b"deadline", DEADLINE_GRACE_S)

    def _expire(self, limit_s: float) -> None:
        """The deadline: the client gets its 504 now; the handler is cancelled, and killed if that does not help."""
        self._deadline = None
        settings = self.pool.function.settings
        edge = settings.runtime == "edge"
        elapsed_ms = self._elapsed_ms()
        limit = "first_byte_timeout" if edge and limit_s != settings.max_duration else "max_duration"
        code = "EDGE_FUNCTION_INVOCATION_TIMEOUT" if edge else "FUNCTION_INVOCATION_TIMEOUT"
        message = f"The function did not {'begin its response' if limit[0] == 'f' else 'finish'} within {limit_s:g} s."
        if self.open or self.outcome == "client_closed":
            self._give_up("timeout", "deadline", DEADLINE_GRACE_S)
            more = {"limit": limit, "limit_ms": round(limit_s * 1000), "elapsed_ms": elapsed_ms}
            self._answer_error(code, message, **more)
        if self.instance is None:
            self._over()

    def _give_up(self, outcome: str, why: str, grace_s: float) -> None:
        self.outcome = outcome
        if self.instance is None:
            self.pool.abandon(self)
        else:
            self._cancel(why.encode(), grace_s)

    def _cancel(self, why: bytes, grace_s: float) -> None:
        instance = self.instance
        if instance is None or self._grace is not None:
            return
        instance.send(wire.frame(self._stream, wire.CANCEL, why))
        loop = self.pool.loop
        if why == b"deadline":
            instance.listen()
            self._stack = loop.call_later(STACK_AFTER_S, instance.print_stack)
        self._grace = loop.call_later(grace_s, self._kill, why)

    def _kill(self, why: bytes) -> None:
        """The handler did not listen. Where others run in the same process they may finish first."""
        instance = self.instance
        assert instance is not None
        if why == b"deadline" and self._stack is not None and not instance.has_spoken():
            # On a machine so busy that it has not come to its stack, it gets a little longer; the client has its 504.
            self._stack = None
            self._grace = self.pool.loop.call_later(STACK_LATEST_S, self._kill, why)
            return
        reason = "it did not stop at its deadline" if why == b"deadline" else "it did not stop when its client left"
        if self._booked < 2:
            self._close_row()  # the clock of a process that has ended cannot be read
        instance.give_up(self._stream, reason)

    def _nonsense(self, what: str) -> None:
        self.outcome = "error"
        self._site.log.failure(self, f"the response cannot be sent: {what}\n")
        self._answer_error("FUNCTION_INVOCATION_FAILED", None)

    def _over(self) -> None:
        """The invocation has ended: free its place, write its line."""
        self._stop_timers()
        self._site.crowd.inside -= 1
        if self.parent is not None:
            self.parent.inner -= 1
        if self._booked < 2:
            self._close_row()
        elif self._has_after or self.outcome != "ok":
            self._book.amend(self)
        instance, self.instance = self.instance, None
        if instance is not None:
            if self.outcome == "timeout" and self.pool.concurrency == 1:
                # It has come to an end. What it started, daemons too, must not outlive the deadline.
                instance.give_up(self._stream, "it reached its deadline")
            instance.release(self._stream)
        self._site.log.access(self)

    def _close_row(self) -> None:
        self._booked = 2
        self._book.close(self)
        if self._first_s:
            self._book.streamed(self, self._first_s)
        if self.instance is not None and (self._has_after or self.outcome != "ok"):
            self.mark = self.instance.meter.mark()

    def _stop_timers(self) -> None:
        for timer in (self._deadline, self._grace, self._stack):
            if timer is not None:
                timer.cancel()
        self._deadline = self._grace = self._stack = None

    def _answer_error(self, code: str, message: str | None, *headers: tuple[bytes, bytes], **more: object) -> None:
        """An error if nothing was sent yet; a visibly broken end otherwise."""
        if not self.open:
            return
        self.open = False
        if self._started:
            self._close_row()
            self._flush_masking()
            self.exchange.cut()
            return
        status, all_headers, body = answers.error(code, message, self.id, *headers, **more)
        self.status = status
        all_headers.append((b"server-timing", self._timing(None)))
        self.bytes_out = len(body)
        self._close_row()
        self.exchange.answer(status, all_headers, body)

    def _flush_masking(self) -> None:
        """Bytes yielded before a failure are delivered, those held back for masking too."""
        rest = self._masking.end() if self._masking is not None else b""
        if rest and self._encoder is not None:
            rest = self._encoder.feed(rest)
        if rest:
            self.exchange.write(rest)

    # --- small print

    def _read_head(self, fields: list[bytes]) -> tuple[int, answers.Headers]:
        """Status and headers as the instance wrote them, masked, without framing. Raises ValueError."""
        status = int(fields[0])
        if not 200 <= status <= 599:
            raise ValueError(f"status {status} is not between 200 and 599")
        mask = self._site.masker
        pairs = iter(fields[1:])
        headers = [(name, value) for name, value in zip(pairs, pairs, strict=True) if name not in FRAMING]
        if mask:
            headers = [(name, mask.mask(value)) for name, value in headers]
        return status, headers

    def _accepted(self) -> bytes | None:
        for name, value in self.exchange.headers:
            if name == b"accept-encoding":
                return value
        return None

    def _elapsed_ms(self) -> float:
        return round((monotonic() - self.exchange.started) * 1000, 1)

    def _timing(self, exec_ms: float | None) -> bytes:
        began = self.begun_s or monotonic()
        queue_ms = max(began - self.exchange.started, 0.0) * 1000
        init_ms = self.instance.init_ms if self.cold and self.instance is not None else 0.0
        queue_ms = max(queue_ms - init_ms, 0.0)
        text = b"queue;dur=%.2f, init;dur=%.2f;desc=%s" % (queue_ms, init_ms, b"cold" if self.cold else b"warm")
        return text if exec_ms is None else text + b", exec;dur=%.2f" % exec_ms

    def _masked_text(self, text: str) -> str:
        mask = self._site.masker
        return mask.mask(text.encode(errors="replace")).decode(errors="replace") if mask else text
