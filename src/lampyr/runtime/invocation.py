"""One invocation inside an instance: from the request's frame to the last thing the handler left to run."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from lampyr.errors import BadRequest, ClientDisconnect
from lampyr.runtime import context, stream, wire
from lampyr.runtime.request import Body, Request
from lampyr.runtime.response import NonsenseReturned, Response, to_response

if TYPE_CHECKING:
    from lampyr.runtime.instance import Instance

# A larger piece of a body leaves in parts, so that one chunk cannot outgrow the gateway's buffers.
PIECE_BYTES = wire.WINDOW_BYTES


class ArrivingBody(Body):
    """A request body that is still on its way; reading it lets the gateway send more."""

    def __init__(self, instance: Instance, stream_id: int, first: bytes) -> None:
        super().__init__(b"")
        self._instance = instance
        self._stream = stream_id
        self._pieces: deque[bytes] = deque([first] if first else [])
        self._ended = False
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._wake()

    def feed_end(self) -> None:
        self._ended = True
        self._wake()

    def lose(self) -> None:
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes:
        while not self._pieces:
            if self._ended:
                return b""
            if self._lost:
                raise ClientDisconnect("the client left before its request body was complete")
            self._waiter = self._instance.loop.create_future()
            await self._waiter
        piece = self._pieces.popleft()
        credit = len(piece).to_bytes(4, "big")
        self._instance.send(wire.frame(self._stream, wire.BODY_CREDIT, credit))
        return piece


class Invocation:
    """Calls the handler for one request and sends its response as frames."""

    __slots__ = ("_credit", "_instance", "_stream", "_waiter", "body", "context", "request", "task")

    def __init__(self, instance: Instance, stream_id: int, fields: list[bytes], body: bytes, *, whole: bool) -> None:
        self._instance = instance
        self._stream = stream_id
        self._credit = wire.WINDOW_BYTES
        self._waiter: asyncio.Future[None] | None = None
        self.body: Any = Body(body) if whole else ArrivingBody(instance, stream_id, body)
        self.request = Request(fields, self.body)
        self.context = context.Invocation(self.request)
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """The whole invocation. Whatever happens, exactly one final frame is sent, and DONE after AFTER."""
        context.current.set(self.context)
        try:
            await self._respond()
        except asyncio.CancelledError:
            self._finish(wire.FAIL, b"cancelled\0")
        except SystemExit as leaving:
            from lampyr.runtime.instance import leave

            leave(leaving.code if isinstance(leaving.code, int) else 1)
        except BaseException as error:
            self._finish(wire.FAIL, _failure(error))
        if self.context.after:
            await self._run_after()
        self._instance.ended(self._stream)

    def cancel(self) -> None:
        """The client has left, or the deadline has passed."""
        self.request.signal.fire()
        if isinstance(self.body, ArrivingBody):
            self.body.lose()
        if self.task is not None:
            self.task.cancel()

    def add_credit(self, count: int) -> None:
        self._credit += count
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _respond(self) -> None:
        program = self._instance.program
        method = self.request.method
        try:
            handler = program.methods[method]
            arguments = (self.request, self.context)[: handler.arity]
            if handler.in_thread:
                result = await self._in_thread(handler.call, *arguments)
            else:
                result = handler.call(*arguments)
            if isawaitable(result):
                result = await result
            response = to_response(result, method, program.file)
        except context.Interrupt as interrupt:
            response = interrupt.response
        await self._send(response)

    async def _send(self, response: Response) -> None:
        body = response.body
        if body is None or isinstance(body, bytes):
            fields = response.fields()
            if body is None or len(body) <= PIECE_BYTES:
                self._finish(wire.ANSWER, b"", fields, body or b"")
                return
            fields += [b"content-length", b"%d" % len(body)]
            self._instance.send(wire.head_frame(self._stream, wire.HEAD, fields))
            await self._write(body)
        else:
            await self._stream_body(response)
        self._finish(wire.END)

    async def _stream_body(self, response: Response) -> None:
        body: Any = response.body
        if hasattr(body, "__aiter__"):
            chunks = stream.chunks(response)
        else:
            chunks = self._from_thread(stream.sync_chunks(response))
        started = response.settled
        if started:
            self._instance.send(wire.head_frame(self._stream, wire.HEAD, response.fields()))
        try:
            if self.request.method == "HEAD":
                return
            async for chunk in chunks:
                if not started:
                    started = True
                    self._instance.send(wire.head_frame(self._stream, wire.HEAD, response.fields()))
                await self._write(chunk)
        finally:
            await chunks.aclose()
            if not started and sys.exc_info()[0] is None:
                self._instance.send(wire.head_frame(self._stream, wire.HEAD, response.fields()))

    async def _write(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            while self._credit <= 0:
                self._waiter = self._instance.loop.create_future()
                await self._waiter
            piece = data[start : start + PIECE_BYTES]
            self._credit -= len(piece)
            self._instance.send(wire.frame(self._stream, wire.CHUNK, piece))

    def _finish(self, kind: int, payload: bytes = b"", fields: list[bytes] | None = None, body: bytes = b"") -> None:
        if self.context.after:
            self._instance.send(wire.frame(self._stream, wire.AFTER))
        if fields is not None:
            self._instance.send(wire.head_frame(self._stream, kind, fields, body))
        else:
            self._instance.send(wire.frame(self._stream, kind, payload))

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run a sync call in a thread. A thread cannot be cancelled, so the invocation is not over before it is."""
        future = self._instance.loop.run_in_executor(None, partial(copy_context().run, call, *arguments))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def _from_thread(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        try:
            while (chunk := await self._in_thread(next, chunks, None)) is not None:
                yield chunk
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                await self._in_thread(close)

    async def _run_after(self) -> None:
        """Run what `after` collected, in order; what is added meanwhile runs too. Errors are the log's."""
        for call, arguments, keywords in self.context.after:
            try:
                result = call(*arguments, **keywords)
                if isawaitable(result):
                    await result
            except asyncio.CancelledError:
                break
            except Exception:
                traceback.print_exc()
        self._instance.send(wire.frame(self._stream, wire.DONE))


def _failure(error: BaseException) -> bytes:
    """The payload of a FAIL frame: kind, NUL, text. The text of a bad request is for the client, all else for the log."""
    if isinstance(error, BadRequest):
        return b"bad_request\0" + str(error).encode(errors="replace")
    if isinstance(error, ClientDisconnect):
        return b"cancelled\0"
    kind = b"memory\0" if isinstance(error, MemoryError) else b"raised\0"
    if isinstance(error, NonsenseReturned):
        text = str(error)
    else:
        text = "".join(traceback.format_exception(type(error), error, _users_part(error)))
    return kind + text.encode(errors="replace")


def _users_part(error: BaseException) -> Any:
    """The traceback from the first frame outside this file on."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None and where.tb_frame.f_code.co_filename == __file__:
        where = where.tb_next
    return where
