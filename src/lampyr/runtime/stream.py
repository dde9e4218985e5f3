"""Bodies that are still being made: where their chunks come from, and how each is written for the wire."""

from __future__ import annotations

import json
import re
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from typing import Any, ClassVar

from lampyr.core.codes import CODES
from lampyr.core.events import Tail
from lampyr.runtime import json_text, stack
from lampyr.runtime.response import TEXT, Response, encode_text

InThread = Callable[..., Awaitable[Any]]
Fields = tuple[tuple[bytes, bytes], ...]

EVENT_STREAM = b"text/event-stream"
# What keeps proxies from holding or rewriting an event stream (SPEC 2, Streaming).
EVENT_FIELDS = (
    (b"content-type", EVENT_STREAM),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

_LINES = re.compile(r"\r\n|\n|\r")
END = object()  # instead of a chunk: there are no more

# Anthropic's wire events; its SDK mixes events of its own making into `messages.stream()`.
ANTHROPIC = frozenset(
    (
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop", "ping", "error",
    )
)  # fmt: skip
SDK_ADDS: dict[Any, set[str]] = {"message_stop": {"message"}, "content_block_stop": {"content_block"}}
OPENAI_CHAT = frozenset(("chat.completion.chunk", "text_completion"))


# Sources ----------------------------------------------------------------------------------------------------------


class AsyncSource:
    """The chunks of an async iterable."""

    def __init__(self, iterable: Any) -> None:
        self._iterable = iterable
        self._iterator = iterable.__aiter__()
        self.next: Callable[[], Awaitable[Any]] = self._iterator.__anext__

    async def close(self) -> None:
        """Let the iterator end (`finally` runs), and whatever is behind it: an SDK's stream closes its connection."""
        things = (self._iterator,) if self._iterator is self._iterable else (self._iterator, self._iterable)
        for thing in things:
            close = getattr(thing, "aclose", None) or getattr(thing, "close", None)
            result = close() if close is not None else None
            if isawaitable(result):
                await result


class ThreadSource:
    """The chunks of a sync iterable, whose steps are taken in a thread."""

    def __init__(self, iterable: Any, in_thread: InThread) -> None:
        self._iterable = iterable
        self._in_thread = in_thread
        self._iterator: Iterator[Any] | None = None

    def step(self) -> Any:
        """The next chunk, or END; to be called in a thread."""
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        return next(self._iterator, END)

    async def next(self) -> Any:
        chunk = await self._in_thread(self.step)
        if chunk is END:
            raise StopAsyncIteration
        return chunk

    async def close(self) -> None:
        """As AsyncSource.close."""
        things = (self._iterator,) if self._iterator is self._iterable else (self._iterator, self._iterable)
        for thing in things:
            close = getattr(thing, "close", None)
            if close is not None:
                await self._in_thread(close)


class ReadySource:
    """The chunks of a list or a tuple: nothing to wait for, nothing to close."""

    def __init__(self, chunks: Any) -> None:
        self._iterator = iter(chunks)

    async def next(self) -> Any:
        chunk = next(self._iterator, END)
        if chunk is END:
            raise StopAsyncIteration
        return chunk

    async def close(self) -> None:
        pass


Source = AsyncSource | ThreadSource | ReadySource


def source_of(iterable: Any, in_thread: InThread) -> Source:
    """Where the chunks of `iterable` come from."""
    if hasattr(iterable, "__aiter__"):
        return AsyncSource(iterable)
    if isinstance(iterable, (list, tuple)):
        return ReadySource(iterable)
    return ThreadSource(iterable, in_thread)


async def close_quietly(source: Source) -> None:
    """Close a source; an error of its cleanup is the log's, the response is complete or lost already."""
    try:
        await source.close()
    except Exception as error:
        stack.print_trace(error)


# Encoders ---------------------------------------------------------------------------------------------------------


class NotAChunk(TypeError):
    """A stream yielded what it cannot send."""


class Encoder:
    """Writes chunks as they travel. `fields` are header fields the response gets where it has none of that name."""

    fields: ClassVar[Fields] = EVENT_FIELDS
    plain: ClassVar[bool] = False  # text and bytes are sent as they are, whatever came before

    @property
    def between_events(self) -> bool:
        """Whether a comment may be sent now: what was sent so far ends with a complete event."""
        return True

    def encode(self, chunk: Any) -> bytes:
        """The bytes of one chunk; b"" where nothing is to be sent. Raises TypeError for what cannot be."""
        raise NotImplementedError

    def end(self) -> bytes:
        """What closes a stream that is complete."""
        return b""

    def failure(self, id: str) -> bytes:
        """What tells a reader that the handler failed: nothing of the user's code is in it."""
        error = {"code": "FUNCTION_INVOCATION_FAILED", "message": CODES["FUNCTION_INVOCATION_FAILED"].message, "id": id}
        return b"event: error\n" + _data({"type": "error", "error": error})


class Raw(Encoder):
    """Text and bytes as they are."""

    fields: ClassVar[Fields] = ()
    plain: ClassVar[bool] = True

    @property
    def between_events(self) -> bool:
        return False

    def encode(self, chunk: Any) -> bytes:
        if isinstance(chunk, str):
            return encode_text(chunk)
        if isinstance(chunk, bytes):
            return chunk
        if isinstance(chunk, (bytearray, memoryview)):
            return bytes(chunk)
        raise NotAChunk(
            f"yielded {type(chunk).__name__}; chunks are str or bytes, and sse(...) sends what JSON can hold"
        )

    def failure(self, id: str) -> bytes:
        return b""


class RawText(Raw):
    """Text whose type the handler did not name: without one a browser would guess, and may run it as HTML."""

    fields: ClassVar[Fields] = ((b"content-type", TEXT),)


class RawEvents(Raw):
    """Events that the handler has written itself, recognised by its Content-Type."""

    fields: ClassVar[Fields] = EVENT_FIELDS
    plain: ClassVar[bool] = False

    def __init__(self) -> None:
        self._tail = Tail()

    def encode(self, chunk: Any) -> bytes:
        data = super().encode(chunk)
        self._tail.passed(data)
        return data

    @property
    def between_events(self) -> bool:
        return self._tail.between

    def failure(self, id: str) -> bytes:
        return (b"" if self.between_events else b"\n\n") + Encoder.failure(self, id)


class Models(Encoder):
    """Objects with `model_dump_json()` as the provider they come from would have sent them."""

    def __init__(self) -> None:
        self._done: bool | None = None

    def encode(self, chunk: Any) -> bytes:
        dump = getattr(chunk, "model_dump_json", None)
        if dump is None:
            raise NotAChunk(f"yielded {type(chunk).__name__} in a stream of models; sse(...) takes a mixture")
        kind = getattr(chunk, "type", None)
        if type(chunk).__module__.partition(".")[0] in ("openai", "anthropic"):
            if kind is not None and _is_derived(type(chunk), kind):
                return b""
            # What was not on the wire when the SDK read it stays away: clients reject nulls the provider never sends.
            text = dump(exclude_unset=True, by_alias=True, exclude=SDK_ADDS.get(kind))
        else:
            text = dump()
        if self._done is None or not isinstance(kind, str):
            kind = self._recognise(chunk, text)
        if kind is not None and (kind in ANTHROPIC or kind.startswith("response.")):
            return f"event: {kind}\n".encode() + _data_lines(text)
        return _data_lines(text)

    def _recognise(self, chunk: Any, text: str) -> str | None:
        """The chunk's event type; the first chunk decides whether the provider closes with [DONE]."""
        value = json.loads(text)
        if not isinstance(value, dict):
            value = {}
        if self._done is None:
            self._done = value.get("object") in OPENAI_CHAT or "choices" in value
        kind = getattr(chunk, "type", value.get("type"))
        return kind if isinstance(kind, str) else None

    def end(self) -> bytes:
        return DONE if self._done else b""


def _is_derived(model: type, kind: str) -> bool:
    return model.__module__.startswith("anthropic.lib.") and kind not in ANTHROPIC


class Events(Encoder):
    """Anything, as server-sent events: what `sse` writes."""

    def __init__(self) -> None:
        self._models = Models()

    def encode(self, chunk: Any) -> bytes:
        if isinstance(chunk, str):
            return _data_lines(chunk)
        if isinstance(chunk, (bytes, bytearray, memoryview)):
            return _data_lines(bytes(chunk).decode("utf-8", "replace"))
        if hasattr(chunk, "model_dump_json"):
            return self._models.encode(chunk)
        if hasattr(chunk, "data") and hasattr(chunk, "event"):
            return _event(chunk)
        return _data(chunk)

    def end(self) -> bytes:
        return self._models.end()


def _data(value: Any) -> bytes:
    try:
        return b"data: " + json_text.encode(value) + b"\n\n"
    except (json_text.NotJson, RecursionError, ValueError) as error:
        if (why := json_text.fault(error)) is None:
            raise
        raise NotAChunk(f"yielded {type(value).__name__}, in which {why}") from None


def _data_lines(text: str) -> bytes:
    if "\n" in text or "\r" in text:
        text = "\ndata: ".join(_LINES.split(text))
    return encode_text(f"data: {text}\n\n")


def _event(event: Any) -> bytes:
    """An object with `event` and `data`, and perhaps `id` and `retry` (milliseconds): WHATWG HTML 9.2."""
    lines = []
    for name in ("event", "id", "retry"):
        value = getattr(event, name, None)
        if value is not None:
            if re.search(r"[\r\n\0]", str(value)):
                raise ValueError(f"the {name} of a server-sent event is one line")
            lines.append(f"{name}: {value}\n")
    head = "".join(lines).encode()
    if event.data is None:
        return head + b"\n"
    return head + (_data_lines(event.data) if isinstance(event.data, str) else _data(event.data))


class Event:
    """One server-sent event for `sse`: `data` is text or anything JSON can hold, `retry` is in milliseconds."""

    __slots__ = ("data", "event", "id", "retry")

    def __init__(
        self, data: Any = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry


class EventStream:
    """An iterable whose chunks are sent as server-sent events. Iterating it gives their bytes."""

    __slots__ = ("make_encoder", "source")

    def __init__(self, source: Any, make_encoder: Callable[[], Encoder]) -> None:
        if not hasattr(source, "__aiter__") and not hasattr(source, "__iter__"):
            raise TypeError(f"a stream of events needs an iterable, not {type(source).__name__}")
        self.source = source
        self.make_encoder = make_encoder

    async def __aiter__(self) -> AsyncIterator[bytes]:
        encoder = self.make_encoder()
        source = source_of(self.source, _in_default_thread)
        try:
            while True:
                try:
                    chunk = await source.next()
                except StopAsyncIteration:
                    break
                if data := encoder.encode(chunk):
                    yield data
            if data := encoder.end():
                yield data
        finally:
            await close_quietly(source)


async def _in_default_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await get_running_loop().run_in_executor(None, partial(copy_context().run, call, *arguments))


def sse(iterable: Any) -> EventStream:
    """Send what `iterable` yields as server-sent events, one event a chunk.

    A str becomes `data:` lines; dicts, lists, numbers, dataclasses and models become JSON; `Event`, or any object with
    `event` and `data`, and perhaps `id` and `retry`, sets those fields. Return it, or give it to `Response`.
    """
    return EventStream(iterable, Events)


# What a body is ---------------------------------------------------------------------------------------------------


def encoder_for(response: Response) -> Encoder | None:
    """How the chunks of this response are written, where that is known before the first one."""
    if isinstance(response.body, EventStream):
        return response.body.make_encoder()
    if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return None if _is_sdk_stream(response.body) else RawEvents()
    return None


def encoder_for_chunk(chunk: Any) -> Encoder:
    """How chunks are written, by the first one."""
    if hasattr(chunk, "model_dump_json"):
        return Models()
    return RawText() if isinstance(chunk, str) else Raw()


def is_events(response: Response) -> bool:
    """Whether it is sure, before the first chunk, that this will be a stream of events."""
    return (
        isinstance(response.body, EventStream)
        or _is_sdk_stream(response.body)
        or response.headers.get("content-type", "").lower().startswith("text/event-stream")
    )


def _is_sdk_stream(body: Any) -> bool:
    return type(body).__module__.partition(".")[0] in ("openai", "anthropic")
