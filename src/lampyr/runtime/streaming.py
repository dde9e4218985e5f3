"""Sending a response whose body is still being made: chunk by chunk, kept alive, and never left open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from lampyr.runtime import stream, wire
from lampyr.runtime.response import NonsenseReturned, Response
from lampyr.runtime.walk import Walk

if TYPE_CHECKING:
    from lampyr.runtime.invocation import Invocation


class KeepAlive:
    """Calls `break_silence` whenever nothing was sent for `interval_s` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float, break_silence: Callable[[], None]) -> None:
        self._loop = loop
        self._interval_s = interval_s
        self._break_silence = break_silence
        self._last = loop.time()
        self._timer = loop.call_later(interval_s, self._look)

    def spoke(self) -> None:
        """Something was sent just now."""
        self._last = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        # One timer a stream, moved only when it fires: a chunk costs one reading of the clock.
        now = self._loop.time()
        if now >= self._last + self._interval_s:
            self._break_silence()
            self._last = now
        self._timer = self._loop.call_at(self._last + self._interval_s, self._look)


class Streaming:
    """Sends one response whose body is an iterable.

    Its head leaves with the first bytes: until then nothing is decided, and a failure is still answered with a 500.
    """

    def __init__(self, invocation: Invocation, response: Response) -> None:
        body = response.body
        self._invocation = invocation
        self._response = response
        self._encoder = stream.encoder_for(response)
        self._source = stream.source_of(
            body.source if isinstance(body, stream.EventStream) else body, invocation.in_thread
        )
        self._keep_alive: KeepAlive | None = None

    async def run(self) -> None:
        """Send it to its end. The source is closed whatever happens."""
        invocation = self._invocation
        try:
            if invocation.request.method != "HEAD":
                if stream.is_events(self._response):
                    self._watch()
                await self._send_chunks()
        except BaseException as error:
            await self._tell(error)
            raise
        finally:
            if self._keep_alive is not None:
                self._keep_alive.stop()
            await stream.close_quietly(self._source)
        if invocation.context.begun:
            invocation.finish(wire.END)
        else:
            invocation.answer(self._fields(), b"")

    async def _send_chunks(self) -> None:
        source = self._source
        while True:
            try:
                chunk = await source.next()
            except StopAsyncIteration:
                break
            encoder = self._encoder or self._settle(chunk)
            if data := self._encode(encoder, chunk):
                await self._write(data)  # with the head, which nothing may overtake
                if isinstance(source, stream.ThreadSource):
                    await self._send_steps(source, encoder)
                else:
                    await self._send_others(source.next, encoder)
                break
        if self._encoder is not None and (data := self._encoder.end()):
            await self._write(data)

    async def _send_others(self, step: Callable[[], Awaitable[object]], encoder: stream.Encoder) -> None:
        """The chunks behind the first: no frame of ours for one that the client has room for, and that is plain."""
        invocation, keep_alive, plain = self._invocation, self._keep_alive, encoder.plain
        outlet = invocation.outlet
        assert outlet is not None  # the first chunk has left
        while True:
            try:
                chunk = await step()
            except StopAsyncIteration:
                return
            encoded = None if plain else self._encode(encoder, chunk)
            if outlet.take(chunk if plain else encoded):
                if keep_alive is not None and encoded != b"":
                    keep_alive.spoke()
            elif data := self._encode(encoder, chunk) if encoded is None else encoded:
                await self._write(data)

    async def _send_steps(self, source: stream.ThreadSource, encoder: stream.Encoder) -> None:
        """The chunks of a sync iterable, behind the first."""
        invocation = self._invocation
        spoke = self._keep_alive.spoke if self._keep_alive is not None else None
        while True:
            walk = Walk(invocation, source, partial(self._encode, encoder), spoke)
            invocation.instance.walks += 1
            try:
                unsent = await invocation.in_thread(walk.run)
            finally:
                invocation.instance.walks -= 1
                invocation.has_sent(walk.sent_bytes)
            if unsent is None:
                return
            if unsent:
                await self._write(unsent)

    def _encode(self, encoder: stream.Encoder, chunk: object) -> bytes:
        try:
            return encoder.encode(chunk)
        except stream.NotAChunk as error:
            invocation = self._invocation
            where = f"{invocation.instance.program.file}: {invocation.request.method}"
            raise NonsenseReturned(f"{where} {error}") from None

    def _settle(self, chunk: object) -> stream.Encoder:
        """The first chunk says what kind of stream this is."""
        self._encoder = stream.encoder_for_chunk(chunk)
        if self._encoder.between_events and self._keep_alive is None:
            self._watch()
        return self._encoder

    def _watch(self) -> None:
        instance = self._invocation.instance
        self._keep_alive = KeepAlive(instance.loop, instance.program.stream_keepalive_s, self._break_silence)

    async def _write(self, data: bytes) -> None:
        invocation = self._invocation
        if not invocation.context.begun:
            invocation.head(self._fields())
        await invocation.write(data)
        if self._keep_alive is not None:
            self._keep_alive.spoke()

    def _break_silence(self) -> None:
        lock = self._invocation.threads.lock
        if not lock.acquire(blocking=False):
            return  # a thread is just about to send something
        try:
            if self._encoder is not None and not self._encoder.between_events:
                return
            if not self._invocation.context.begun:
                self._invocation.head(self._fields())
            self._invocation.write_now(stream.KEEP_ALIVE)
        finally:
            lock.release()

    async def _tell(self, error: BaseException) -> None:
        """Tell readers of an event stream that it failed; where nothing was sent yet the gateway answers instead."""
        invocation = self._invocation
        if isinstance(error, asyncio.CancelledError) or invocation.cancelled or not invocation.context.begun:
            return
        encoder = self._encoder or stream.Encoder()
        if data := encoder.failure(invocation.request.id):
            await invocation.write(data)

    def _fields(self) -> list[bytes]:
        """The head: the handler's own fields, and those this kind of stream gets where it has none of that name."""
        fields = self._response.fields(self._invocation.context.set_cookies)
        if self._encoder is not None:
            more = self._encoder.fields
        else:
            more = stream.EVENT_FIELDS if stream.is_events(self._response) else ()
        for name, value in more:
            if name not in fields[1::2]:
                fields += (name, value)
        return fields
