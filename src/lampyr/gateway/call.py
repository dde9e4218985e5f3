"""One invocation on its way through the gateway: waiting, running, answering, over."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from lampyr.gateway import answers, timing
from lampyr.gateway.ending import Ending
from lampyr.node.instance import CRASHED, OUT_OF_MEMORY
from lampyr.node.watch import BLOCKED, REPLACED_AFTER_S
from lampyr.runtime import wire

if TYPE_CHECKING:
    from lampyr.core.masking import Masker
    from lampyr.gateway.exchange import Exchange
    from lampyr.gateway.reply import Stream
    from lampyr.gateway.service import Service
    from lampyr.node.instance import Instance

# Credit goes back to an instance in portions, so that a stream of small chunks costs few frames.
CREDIT_BYTES: Final = 32 * 1024
# A request of up to this size, with its head, travels in one packet, and so may wait in an instance's socket.
BRIEF_BYTES: Final = 16 * 1024


class Call:
    """A `Receiver` for its exchange and a `Caller` for its instance.

    `outcome` is the word of SPEC 6: ok, error, timeout, crashed, client_closed, throttled.
    """

    __slots__ = (
        "_body_left",
        "_booked",
        "_closed_s",
        "_complete",
        "_credit",
        "_deadline",
        "_ending",
        "_first_s",
        "_has_after",
        "_owed",
        "_returned",
        "_service",
        "_started",
        "_stream",
        "_streamed",
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
        "responded_s",
        "spared",
        "status",
    )

    def __init__(self, service: Service, exchange: Exchange, target: bytes, depth: int) -> None:
        self._service = service
        self.pool = service.pool
        self.exchange = exchange
        self._target = target  # fields ID to IP of the request's frame (runtime/wire.py), joined
        self.id = exchange.id
        self.instance: Instance | None = None
        self.depth = depth  # of functions that call one another
        self.inner = 0  # calls made by it that are not over, as far as somebody had to know
        self.parent = exchange.parent
        if self.parent is not None:
            self.parent.inner += 1
        service.crowd.inside += 1
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
        self.responded_s = 0.0  # when the last frame of its response came, where `after` has work to do
        self.spared = False
        self._booked = False  # it has a row in the ledger
        self._closed_s = 0.0  # when that was completed
        self.mark = (0, 0.0)  # what its instance had used when it began
        self._stream = 0
        self._started = False
        self._first_s = 0.0  # when the first byte of a streamed body left
        self._has_after = False
        self._streamed: Stream | None = None  # what the pieces of a streamed response go through
        self._window = wire.WINDOW_BYTES - self.bytes_in  # what the instance lets us send of the body
        self._body_left: list[bytes] = []  # arrived while the call waited for an instance
        self._credit = wire.WINDOW_BYTES  # what we let the instance send
        self._owed = 0  # sent by the instance, read by the client, not yet credited
        self._deadline: asyncio.TimerHandle | None = None  # where the one of its service is not the one it has
        self._ending: Ending | None = None  # it has been told to stop
        service.deadlines.add(self)

    @property
    def route(self) -> str:
        """The function's."""
        return self._service.route

    @property
    def masker(self) -> Masker:
        """What hides this deployment's secrets."""
        return self._service.replies.masker

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
        limit_s = self._service.max_duration_s
        deadline = b"" if limit_s is None else b"%.3f" % max(limit_s - (self.begun_s - exchange.started), 0.0)
        if not self._booked:
            self._booked = True
            self._service.book.open(self)
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
        """The client sends more than it may: no fault of the function, whose handler ends as if the client had left."""
        limit = self.pool.function.settings.max_body
        self._give_up("client_closed")
        self._answer_error("FUNCTION_PAYLOAD_TOO_LARGE", f"This function accepts bodies of up to {limit} bytes.")
        if self.instance is None:
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
            self._cancel()
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
        more = {"traceback": self._import_failure(failure)} if failure and self._service.shows_tracebacks else {}
        headers = [(b"retry-after", b"1")] if code == "FUNCTION_THROTTLED" else []
        self._answer_error(code, None, *headers, **more)
        self._over()

    def _import_failure(self, failure: dict[str, object]) -> str:
        """What a failed import has said, for whoever develops it."""
        hint = f"hint: {failure['hint']}\n" if failure.get("hint") else ""
        return self._service.replies.text(f"{failure['traceback']}{hint}")

    def answer(self, head: bytes, body: bytes) -> None:
        """The whole response in one frame."""
        if not self.open or self._started:
            self._responded()
            return
        try:
            lines, body = self._service.replies.whole(self.exchange, head, body)
        except ValueError as error:
            self._nonsense(str(error))
            self._responded()
            return
        self.status = lines.status
        self.bytes_out = len(body)
        now_s = self._closed_s = monotonic()
        self._service.book.close(self, now_s)
        self.exchange.answer_with(lines, timing.line(self, now_s), body)
        self.open = False
        if not self._has_after:
            self._over()
            return
        if self.instance is not None:
            self.mark = self.instance.meter.mark()
        self._responded()

    def head(self, fields: list[bytes]) -> None:
        """The head of a streamed response."""
        if self._started or not (self.open or self._goes_on()):
            return
        if self.open and not self._start(fields):
            return
        self._started = True
        settings = self.pool.function.settings
        if settings.first_byte_timeout is not None:
            self._stop_timers()
            if settings.max_duration is not None:
                left_s = settings.max_duration - (monotonic() - self.exchange.started)
                self._deadline = self.pool.loop.call_later(max(left_s, 0.0), self.expire)

    def _goes_on(self) -> bool:
        """Whether the handler works on after its client has left, at the response that nobody reads."""
        return self.outcome == "client_closed" and self._ending is None and not self.responded_s

    def _start(self, fields: list[bytes]) -> bool:
        """Send the head of a streamed response; False where it cannot be sent."""
        try:
            status, headers, self._streamed = self._service.replies.streamed(self.exchange, fields)
            headers.append(timing.header(self))
            self.status = status
            self.exchange.start(status, headers)
        except ValueError as error:
            self._nonsense(str(error))
            self._give_up("error")
            return False
        return True

    def chunk(self, data: bytes) -> None:
        """A piece of a streamed response: to the client at once."""
        size = len(data)
        self._credit -= size
        if self._credit < -wire.WINDOW_BYTES:
            assert self.instance is not None
            self.instance.kill("it sent more than its window allows")
            return
        if self.open and self._streamed is not None:
            try:
                data = self._streamed.feed(data)
            except ValueError as error:
                self._nonsense(str(error))
                self._give_up("error")
                return
            self.exchange.write(data)
            if data:
                if not self._first_s:
                    self._first_s = monotonic()
                self.bytes_out += len(data)
                if self.exchange.over:  # nothing will make room in there, and the handler would wait for that
                    self._nonsense("its body is longer than its content-length")
                    self._give_up("error")
                    return
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
        if self.open and self._streamed is not None:
            if rest := self._streamed.end():
                self.bytes_out += len(rest)
                self.exchange.write(rest)
            self.open = False
            self.close_row()
            if not self.exchange.end():
                self._nonsense("its body is shorter than its content-length")
        self._responded()

    def fail(self, kind: str, text: str) -> None:
        """The handler failed; `text` is for the log, but for a bad request, where it is for the client."""
        if kind == "bad_request" and self.open and not self._started:  # the client's fault: an answer like any other
            self._answer_error("BAD_REQUEST", self._service.replies.text(text))
        elif kind != "cancelled":
            self.outcome = "error" if self.open else self.outcome
            self._service.log.failure(self, text)
            if kind == "memory" and self.instance is not None:
                self.instance.exhausted()
            code = "FUNCTION_OUT_OF_MEMORY" if kind == "memory" else "FUNCTION_INVOCATION_FAILED"
            if not self._started:
                more = {"traceback": self._service.replies.text(text)} if self._service.shows_tracebacks else {}
                self._answer_error(code, None, **more)
            elif self.open and not self.pool.function.asgi:  # readers of events know it (runtime/streaming.py)
                self._cut(b"" if self._streamed is None else self._streamed.rest())
            else:
                self._answer_error(code, None)
        else:
            self._answer_error("FUNCTION_INVOCATION_FAILED", None)
        self._responded()

    def lost(self, why: str) -> None:
        """The process has ended before the response was complete."""
        if self.outcome == "ok" or self.responded_s:
            if self.outcome == "ok":
                self.outcome = "timeout" if why == BLOCKED else "crashed"
            if self.instance is not None and why == CRASHED:
                self.instance.exit.ask(partial(self._service.log.crash, self))
            else:
                self._service.log.ended(self, why)
        if why == BLOCKED:
            more = {"limit": "event_loop", "limit_ms": round(REPLACED_AFTER_S * 1000), "elapsed_ms": self._elapsed_ms()}
            self._answer_error("EDGE_FUNCTION_INVOCATION_TIMEOUT", f"The function was ended: {BLOCKED}.", **more)
        self._answer_error("FUNCTION_OUT_OF_MEMORY" if why == OUT_OF_MEMORY else "FUNCTION_CRASHED", None)
        self.close_row()
        self.instance = None
        self._over()

    def returned(self) -> None:
        """The instance has not begun with this call and will not: another one is needed, and no more waiting there."""
        self.instance = None
        self.brief = False
        if self._ending is not None:
            self._ending.over()
            self._ending = None
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
        if self.responded_s:
            assert self.instance is not None
            self.instance.kill("it answered a request twice")
            return
        self.responded_s = monotonic()
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
        self._cancel(deadline=True)

    def expire(self) -> None:
        """The deadline: the client gets its 504 now; the handler is cancelled, and killed if that does not help."""
        self._deadline = None
        settings = self.pool.function.settings
        edge = settings.runtime == "edge"
        elapsed_ms = self._elapsed_ms()
        limit_s = settings.max_duration if self._started else self._service.deadlines.limit_s
        assert limit_s is not None
        limit = "max_duration" if limit_s == settings.max_duration else "first_byte_timeout"
        code = "EDGE_FUNCTION_INVOCATION_TIMEOUT" if edge else "FUNCTION_INVOCATION_TIMEOUT"
        message = f"The function did not {'begin its response' if limit[0] == 'f' else 'finish'} within {limit_s:g} s."
        if self.open or self.outcome == "client_closed":
            self._give_up("timeout", deadline=True)
            more = {"limit": limit, "limit_ms": round(limit_s * 1000), "elapsed_ms": elapsed_ms}
            self._answer_error(code, message, **more)
        if self.instance is None:
            self._over()

    def _give_up(self, outcome: str, *, deadline: bool = False) -> None:
        self.outcome = outcome
        if self.instance is None:
            self.pool.abandon(self, overdue=deadline)
        else:
            self._cancel(deadline=deadline)

    def _cancel(self, *, deadline: bool = False) -> None:
        if self.instance is not None and self._ending is None:
            if deadline:
                self._service.log.expect_stack(self.route)
            self._ending = Ending(self, self.instance, self._stream, self.pool.loop, deadline=deadline)

    def _nonsense(self, what: str) -> None:
        self.outcome = "error"
        self._service.log.failure(self, f"the response cannot be sent: {what}\n")
        self._answer_error("FUNCTION_INVOCATION_FAILED", None)

    def _over(self) -> None:
        """The invocation has ended: free its place, write its line."""
        self._stop_timers()
        self._service.crowd.inside -= 1
        if self.parent is not None:
            self.parent.inner -= 1
        if self._closed_s and (self._has_after or self.outcome != "ok"):  # it went on after its answer
            self._closed_s = monotonic()
            self._service.book.amend(self, self._closed_s)
        self.close_row()
        instance, self.instance = self.instance, None
        if instance is not None:
            if self.outcome == "timeout" and self.pool.concurrency == 1:
                # It has come to an end. What it started, daemons too, must not outlive the deadline.
                instance.give_up(self._stream, "it reached its deadline")
            instance.release(self._stream)
        self._service.log.access(self, self._closed_s)
        self.exchange.receiver = None  # a ring of objects would wait for the collector, in memory that is cold by then

    def close_row(self) -> None:
        """Complete its row of the ledger, unless it is."""
        if not self._closed_s:
            self._closed_s = monotonic()
            self._service.book.close(self, self._closed_s)
            if self._first_s:
                self._service.book.streamed(self, self._first_s)
            if self.instance is not None and (self._has_after or self.outcome != "ok"):
                self.mark = self.instance.meter.mark()

    def _stop_timers(self) -> None:
        self._service.deadlines.drop(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._ending is not None:
            self._ending.over()
            self._ending = None

    def _answer_error(self, code: str, message: str | None, *headers: tuple[bytes, bytes], **more: object) -> None:
        """An error if nothing was sent yet; a visibly broken end otherwise, where readers of events are told why."""
        if not self.open:
            return
        if self._started:
            self._cut(b"" if self._streamed is None else self._streamed.cut(code, message, self.id, more))
            return
        self.open = False
        status, all_headers, body = answers.error(code, message, self.id, *headers, **more)
        self.status = status
        all_headers.append(timing.header(self))
        self.bytes_out = len(body)
        self.close_row()
        self.exchange.answer(status, all_headers, body)

    def _cut(self, last: bytes) -> None:
        """End what was begun; what was yielded is delivered, with what was held back of it."""
        self.open = False
        self.bytes_out += len(last)
        self.close_row()
        self.exchange.write(last)
        self.exchange.cut()

    def _elapsed_ms(self) -> float:
        return round((monotonic() - self.exchange.started) * 1000, 1)
