"""One invocation inside an instance: from the request's frame to the last thing the handler left to run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from inspect import isawaitable, iscoroutinefunction
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from lampyr.core.pace import QUICK_S
from lampyr.errors import BadRequest, ClientDisconnect
from lampyr.runtime import context, stack, wire
from lampyr.runtime.arriving import ArrivingBody
from lampyr.runtime.hints import cure
from lampyr.runtime.lines import at_level
from lampyr.runtime.outlet import Outlet
from lampyr.runtime.request import Body, Request
from lampyr.runtime.response import NonsenseReturned, Response, to_response
from lampyr.runtime.streaming import Streaming
from lampyr.runtime.threads import Threads, Workers

if TYPE_CHECKING:
    from lampyr.runtime.asgi import Application
    from lampyr.runtime.program import Program

# A larger piece of a body leaves in parts, so that one chunk cannot outgrow the gateway's buffers.
PIECE_BYTES = wire.WINDOW_BYTES
# Status and headers of a response: no proxy and no client takes as many.
MOST_HEAD_BYTES = 64 * 1024
# The payload of CANCEL when the time is up; without it the client has left, and `after` still has its time.
DEADLINE = b"deadline"


class Host(Protocol):
    """Where invocations run: an instance, or the client for tests."""

    program: Program
    application: Application | None
    loop: asyncio.AbstractEventLoop
    executor: Workers
    retiring: bool
    walks: int  # threads that send chunks now

    def send(self, frame: bytes) -> None:
        """Send a frame to the gateway."""

    def send_now(self, frame: bytes) -> None:
        """Send a frame that must not wait for others."""

    def hold(self, frame: bytes) -> None:
        """Send a frame along with the next one."""

    def send_from_thread(self, frame: bytes) -> bool:
        """Send a frame from another thread than the loop's; False where that cannot be done at once."""

    def ended(self, stream: int) -> None:
        """An invocation is over, with everything it left to run."""

    def leave(self, status: int, trace: str) -> None:
        """The handler wants the process to end (`sys.exit`); `trace` says where."""


class Invocation:
    """Calls the handler for one request and sends its response as frames."""

    __slots__ = (
        "_announced", "_finished", "_stream", "_threads", "_waiter", "body", "cancelled", "context", "instance",
        "on_disconnect", "outlet", "request", "stack_told", "task",
    )  # fmt: skip

    def __init__(self, instance: Host, stream_id: int, fields: list[bytes], body: bytes, *, whole: bool) -> None:
        self.instance = instance
        self._stream = stream_id
        self.outlet: Outlet | None = None  # from the head of a streamed response on
        self._waiter: asyncio.Future[None] | None = None
        self._threads: Threads | None = None
        self.cancelled = False
        self._announced = False
        self._finished = False
        self.stack_told = False  # at the deadline
        self.on_disconnect: Callable[[bool], None] | None = None  # how an ASGI application is told
        self.body: Any = Body(body) if whole else ArrivingBody(instance, stream_id, body)
        self.request = Request(fields, self.body)
        self.context = context.Context(self.request)
        self.task: asyncio.Task[None] | None = None
        if fields[wire.METHOD] in (b"GET", b"HEAD"):
            self._discard_body()

    def _discard_body(self) -> None:
        self.request._body = Body(b"")
        if isinstance(self.body, ArrivingBody):
            self.body.discard()

    # What the gateway does --------------------------------------------------------------------------------------

    def cancel(self, reason: bytes = b"") -> None:
        """The client has left, or the deadline has passed."""
        if self._finished and reason != DEADLINE:
            return  # the response was complete when the client left: what runs now is `after`
        self.cancelled = True
        if reason == DEADLINE and self.task is not None:
            self._tell_stack(self.task)
        self.request.signal.fire()
        if isinstance(self.body, ArrivingBody):
            self.body.lose()
        if self.on_disconnect is not None:
            self.on_disconnect(reason == DEADLINE)
        elif self.task is not None:
            self.task.cancel()

    def _tell_stack(self, task: asyncio.Task[None]) -> None:
        """Print where the handler stands, under this invocation's id."""
        token = context.current.set(self.context)
        self.stack_told = stack.tell(task.get_coro(), self._threads.busy if self._threads is not None else None)
        context.current.reset(token)

    def add_credit(self, count: int) -> None:
        """The client has read: `count` more bytes may be sent."""
        if self.outlet is not None:
            self.outlet.credit += count
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the handler does --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The whole invocation. Whatever happens, exactly one final frame is sent, and DONE after AFTER."""
        context.current.set(self.context)
        try:
            await self._respond()
        except SystemExit as leaving:
            self.instance.leave(leaving.code if isinstance(leaving.code, int) else 1, stack.trace(leaving))
            self._fail(leaving)  # where the host is not a process of its own
        except BaseException as error:
            self._fail(error)
        if self.context.tasks:
            await self._run_after()
        if self._announced:
            self.instance.send(wire.frame(self._stream, wire.DONE))
        self.context.ended = True
        if self.request._form is not None:
            self.request._form.close()
        self.instance.ended(self._stream)

    async def _respond(self) -> None:
        program = self.instance.program
        method = self.request.method
        if self.instance.application is not None:
            await self.instance.application.serve(self)
            return
        try:
            handler = program.methods[method]
            arguments = (self.request, self.context)[: handler.arity]
            if handler.in_thread:
                result = await self.in_thread(handler.call, *arguments)
            else:
                result = handler.call(*arguments)
            if hasattr(result, "__await__"):  # a third of what inspect.isawaitable costs
                result = await result
            response = to_response(result, method, program.file)
            if not self._send_whole(response):
                await self._send_in_parts(response)
        except (context.Interrupt, BaseExceptionGroup) as error:
            interrupt = _interrupt_of(error)
            if interrupt is None or self.context.begun:
                raise
            self._send_whole(interrupt.response)

    async def in_thread(self, call: Any, *arguments: Any) -> Any:
        """Run a call that may block in a thread."""
        return await self.threads.run(call, *arguments)

    @property
    def threads(self) -> Threads:
        """What runs its calls that may block."""
        if self._threads is None:
            self._threads = Threads(self.instance.executor)
        return self._threads

    def _fail(self, error: BaseException) -> None:
        if self.cancelled:
            payload = b"cancelled\0"
            if not isinstance(error, (asyncio.CancelledError, ClientDisconnect)):
                payload += stack.trace(error).encode(errors="replace")
        else:
            payload = _failure(error)
        self.finish(wire.FAIL, payload)

    def announce_after(self) -> None:
        """Tell the gateway, before the final frame, that the stream stays occupied until DONE."""
        if not self._announced and not self._finished:
            self._announced = True
            self.instance.send(wire.frame(self._stream, wire.AFTER))

    async def _run_after(self) -> None:
        """Run what `after` collected, in order; what is added meanwhile runs too. Errors are the log's."""
        if self.task is not None:
            while self.task.cancelling():
                self.task.uncancel()  # the cancellation was the handler's: a timeout inside `after` counts from zero
        for call, arguments, keywords in self.context.tasks:
            try:
                await self._call_after(call, arguments, keywords)
            except asyncio.CancelledError:
                with at_level(logging.ERROR):
                    print(f"{self.instance.program.file}: after() was cut off by max_duration")
                break
            except BaseException as error:
                with at_level(logging.ERROR):
                    stack.print_trace(error)

    async def _call_after(self, call: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if isawaitable(call):
            await call
            return
        if iscoroutinefunction(call):
            await call(*arguments, **keywords)
            return
        result = await self.in_thread(lambda: call(*arguments, **keywords))
        if isawaitable(result):
            await result

    # What leaves ------------------------------------------------------------------------------------------------

    def _send_whole(self, response: Response) -> bool:
        """Send a response in one frame; False for one whose body is still to come, or too large for that."""
        body = response.body
        fields = response.fields(self.context.set_cookies)
        if body is None:
            body = b""
        elif not isinstance(body, bytes):
            return False
        elif self.request.method == "HEAD":
            fields += (b"content-length", b"%d" % len(body))
            body = b""
        elif len(body) > PIECE_BYTES:
            return False
        self.answer(fields, body)
        return True

    async def _send_in_parts(self, response: Response) -> None:
        if not isinstance(response.body, bytes):
            await Streaming(self, response).run()
            return
        fields = response.fields(self.context.set_cookies)
        self.head([*fields, b"content-length", b"%d" % len(response.body)])
        await self.write(response.body)
        self.finish(wire.END)

    def answer(self, fields: list[bytes], body: bytes) -> None:
        """Send a complete response."""
        if self._finished:
            return
        # While the handler takes its first step its task has no name yet.
        quick = self.task is None and not self.context.tasks and monotonic() - self.request._arrived < QUICK_S
        frame = wire.head_frame(self._stream, wire.QUICK_ANSWER if quick else wire.ANSWER, fields, body)
        _check_head(len(frame) - len(body))
        if self.context.tasks:
            self.announce_after()
        self.context.begun = self._finished = True
        self._send_last(frame)

    def head(self, fields: list[bytes]) -> None:
        """The head of a response: it leaves with the chunk, which may be empty, that is written next."""
        frame = wire.head_frame(self._stream, wire.HEAD, fields)
        _check_head(len(frame))
        self.context.begun = True
        self.outlet = Outlet(self.instance, self._stream)
        self.instance.hold(frame)

    async def write(self, data: bytes) -> None:
        """Send a chunk as soon as the client has room for it."""
        if self.write_now(data):
            return
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            while not self.write_now(piece):
                self._waiter = self.instance.loop.create_future()
                await self._waiter

    def write_now(self, data: bytes) -> bool:
        """Send a chunk without waiting; False where the client does not read, or it is too large for that."""
        return self._opened.put(data)

    @property
    def _opened(self) -> Outlet:
        assert self.outlet is not None, "a chunk follows the head"
        return self.outlet

    @property
    def room_bytes(self) -> int:
        """How much of the body may be sent before the client has read some."""
        return self._opened.credit

    def write_from_thread(self, data: bytes) -> bool:
        """Send a chunk from another thread than the loop's, whose business is to count it (`has_sent`); False where it
        cannot be sent at once."""
        if len(data) > PIECE_BYTES:
            return False
        return self.instance.send_from_thread(wire.frame(self._stream, wire.CHUNK, data))

    def has_sent(self, size: int) -> None:
        """So many bytes of chunks were sent from a thread."""
        self._opened.credit -= size

    def finish(self, kind: int, payload: bytes = b"") -> None:
        """Send the final frame."""
        if self._finished:
            return
        if self.context.tasks:
            self.announce_after()
        self._finished = True
        self._send_last(wire.frame(self._stream, kind, payload))

    def _send_last(self, frame: bytes) -> None:
        """The client must not wait for what `after` runs, which may block this process from its first step on."""
        if self.context.tasks:
            self.instance.send_now(frame)
        else:
            self.instance.send(frame)


def _check_head(size: int) -> None:
    if size > MOST_HEAD_BYTES:
        raise ValueError(f"the headers of the response take {size} bytes; at most {MOST_HEAD_BYTES} can be sent")


def _interrupt_of(error: BaseException) -> context.Interrupt | None:
    """The interrupt that `error` is, or, where it went through a task group, consists of."""
    if isinstance(error, BaseExceptionGroup):
        interrupts, rest = error.split(context.Interrupt)
        if interrupts is None or rest is not None:
            return None
        return _interrupt_of(interrupts.exceptions[0])
    return error if isinstance(error, context.Interrupt) else None


def _failure(error: BaseException) -> bytes:
    """The payload of a FAIL frame: kind, NUL, text. That of a bad request is for the client, all else for the log."""
    if isinstance(error, BadRequest):
        return b"bad_request\0" + stack.shortened(str(error)).encode(errors="replace")
    if isinstance(error, NonsenseReturned):
        return b"raised\0" + str(error).encode(errors="replace")
    kind = b"raised\0"
    if isinstance(error, MemoryError):  # numpy raises one of its own
        kind = b"memory\0"
    elif isinstance(error, SystemExit):
        kind = b"crashed\0"
    hint = cure(error)
    return kind + (stack.trace(error) + (f"hint: {hint}\n" if hint else "")).encode(errors="replace")
