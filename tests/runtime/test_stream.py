"""Streams: one chunk out per yield, events, failures before and after the first byte, and who closes what."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic.types import RawContentBlockDeltaEvent, RawMessageStopEvent, TextDelta
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseTextDeltaEvent

from lampyr import Event, Request, Response, not_found, redirect, sse
from lampyr.runtime import wire

SSE = [("content-type", "text/event-stream"), ("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no")]
PLAIN = [("content-type", "text/plain;charset=UTF-8")]


def chat(text: str) -> ChatCompletionChunk:
    delta = {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return ChatCompletionChunk.model_validate(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )


def chat_line(text: str) -> bytes:
    # to_json is the SDK's own idea of what was on the wire.
    return f"data: {chat(text).to_json(indent=None)}\n\n".encode()


def gpt(text: str) -> ResponseTextDeltaEvent:
    return ResponseTextDeltaEvent(
        type="response.output_text.delta", delta=text, content_index=0, item_id="i", output_index=0, sequence_number=1,
        logprobs=[],
    )  # fmt: skip


def claude(text: str) -> RawContentBlockDeltaEvent:
    return RawContentBlockDeltaEvent(
        type="content_block_delta", index=0, delta=TextDelta(type="text_delta", text=text)
    )  # fmt: skip


class Dumps:
    """Not of any SDK: all it has is `model_dump_json`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def model_dump_json(self) -> str:
        return self.text


DONE = b"data: [DONE]\n\n"
CLAUDE = f"event: content_block_delta\ndata: {claude('a').to_json(indent=None)}\n\n".encode()
GPT = f"event: response.output_text.delta\ndata: {gpt('a').to_json(indent=None)}\n\n".encode()
CHUNKS: list[tuple[list[Any], list[tuple[str, str]], list[bytes]]] = [
    (["a", "é"], PLAIN, [b"a", "é".encode()]),
    ([b"a", bytearray(b"b"), memoryview(b"c")], [], [b"a", b"b", b"c"]),
    (["", "a", b"", "b", ""], PLAIN, [b"a", b"b"]),
    ([b"a", "b"], [], [b"a", b"b"]),
    ([], [], []),
    (["\ud800"], PLAIN, ["\ufffd".encode()]),
    ([chat("a"), chat("b")], SSE, [chat_line("a"), chat_line("b"), DONE]),
    ([claude("a"), RawMessageStopEvent(type="message_stop")], SSE,
     [CLAUDE, b'event: message_stop\ndata: {"type":"message_stop"}\n\n']),
    ([gpt("a")], SSE, [GPT]),
    ([Dumps('{"n":1}')], SSE, [b'data: {"n":1}\n\n']),
    ([Dumps('{"choices":[]}'), Dumps('{"choices":[]}')], SSE, [b'data: {"choices":[]}\n\n'] * 2 + [DONE]),
    ([Dumps('{"type":"message_start"}')], SSE, [b'event: message_start\ndata: {"type":"message_start"}\n\n']),
    ([Dumps('{"type":"mine"}')], SSE, [b'data: {"type":"mine"}\n\n']),
    ([Dumps('{\n"a":1}')], SSE, [b'data: {\ndata: "a":1}\n\n']),
]  # fmt: skip

EVENTS: list[tuple[list[Any], list[bytes]]] = [
    (["a"], [b"data: a\n\n"]),
    ([""], [b"data: \n\n"]),
    (["a\nb\r\nc\rd\n"], [b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"]),
    ([b"a\xff"], ["data: a\ufffd\n\n".encode()]),
    ([{"a": "é\n"}], ['data: {"a":"é\\n"}\n\n'.encode()]),
    ([[1, 2], 3, None, True], [b"data: [1,2]\n\n", b"data: 3\n\n", b"data: null\n\n", b"data: true\n\n"]),
    ([{"event": "x", "data": "y"}], [b'data: {"event":"x","data":"y"}\n\n']),
    ([Event("a", event="tick", id="7", retry=500)], [b"event: tick\nid: 7\nretry: 500\ndata: a\n\n"]),
    ([Event({"a": 1})], [b'data: {"a":1}\n\n']),
    ([Event(id="7")], [b"id: 7\n\n"]),
    ([SimpleNamespace(event="e", data="d")], [b"event: e\ndata: d\n\n"]),
    ([chat("a"), "x"], [chat_line("a"), b"data: x\n\n", DONE]),
    ([claude("a")], [CLAUDE]),
    ([], []),
]


async def agen(chunks: list[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def gen(chunks: list[Any]) -> Iterator[Any]:
    yield from chunks


KINDS: dict[str, Callable[[list[Any]], Any]] = {"async": agen, "sync": gen, "list": lambda chunks: chunks}


@pytest.mark.parametrize(("chunks", "fields", "sent"), CHUNKS)
@pytest.mark.parametrize("kind", KINDS)
def test_chunks(
    serve: Callable[..., Any], kind: str, chunks: list[Any], fields: list[tuple[str, str]], sent: list[bytes]
) -> None:
    answer = serve(GET=lambda: Response(KINDS[kind](chunks))).call()
    assert (answer.status, answer.fields, answer.chunks) == (200, fields, sent) and answer.failure is None


@pytest.mark.parametrize("kind", KINDS)
def test_no_chunk_overtakes_the_head(serve: Callable[..., Any], kind: str) -> None:
    """Not even where the first one is empty: without a head the gateway would send none of them on."""
    kinds = serve(GET=lambda: Response(KINDS[kind](["", "a", "b"]))).call().kinds
    assert kinds == [wire.HEAD, wire.CHUNK, wire.CHUNK, wire.END]


@pytest.mark.parametrize(("chunks", "sent"), EVENTS)
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_events(serve: Callable[..., Any], kind: str, wrapped: bool, chunks: list[Any], sent: list[bytes]) -> None:
    async def handler() -> Any:
        stream = sse(KINDS[kind](chunks))
        return Response(stream) if wrapped else stream

    answer = serve(GET=handler).call()
    assert (answer.status, answer.fields, answer.chunks) == (200, SSE, sent)


def test_generator_functions_are_handlers(serve: Callable[..., Any]) -> None:
    async def stream(request: Request) -> AsyncIterator[str]:
        yield request.method
        yield "2"

    def sync_stream() -> Iterator[bytes]:
        yield b"1"
        yield b"2"

    gateway = serve(GET=stream, POST=sync_stream)
    assert gateway.call("GET").chunks == [b"GET", b"2"] and gateway.call("POST").chunks == [b"1", b"2"]


def test_own_headers_win_over_those_of_an_event_stream(serve: Callable[..., Any]) -> None:
    headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "private"}
    answer = serve(GET=lambda: Response(sse(["a"]), 201, headers)).call()
    assert answer.status == 201 and answer.fields == [*headers.items(), ("x-accel-buffering", "no")]


def test_events_written_by_hand(serve: Callable[..., Any]) -> None:
    answer = serve(
        GET=lambda: Response(agen(["data: 1\n", "\n"]), headers={"content-type": "text/event-stream"})
    ).call()
    assert answer.chunks == [b"data: 1\n", b"\n"] and answer.fields == SSE


def test_every_chunk_leaves_when_it_is_yielded(serve: Callable[..., Any]) -> None:
    async def handler() -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(3600)
        yield "never"

    gateway = serve(GET=handler)
    stream = gateway.send()
    assert gateway.wait(stream, wire.CHUNK) == b"first"


def test_a_chunk_does_not_wait_for_a_generator_that_blocks(serve: Callable[..., Any], tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def handler() -> AsyncIterator[str]:
        yield "first"
        while not go.exists():
            time.sleep(0.01)
        yield "second"

    gateway = serve(GET=handler)
    stream = gateway.send()
    assert gateway.wait(stream, wire.CHUNK) == b"first"
    go.touch()
    assert gateway.answer(stream).chunks == [b"first", b"second"]


def test_a_sync_generator_keeps_its_context(serve: Callable[..., Any]) -> None:
    variable: ContextVar[str] = ContextVar("variable")

    def handler(request: Request) -> Iterator[str]:
        variable.set("set in the first step")
        yield "1"
        yield variable.get()

    def returned(request: Request) -> Any:
        variable.set("set by the handler")
        return (variable.get() for _ in range(1))

    gateway = serve(GET=handler, POST=returned)
    assert gateway.call("GET").chunks[1] == b"set in the first step"
    assert gateway.call("POST").text == "set by the handler"


# Backpressure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_reader_that_does_not_read_stops_the_generator(serve: Callable[..., Any], kind: str) -> None:
    def count() -> Iterator[bytes]:
        for number in range(10_000):
            print("made", number, flush=True)
            yield b"x" * 16384

    async def acount() -> AsyncIterator[bytes]:
        for chunk in count():
            yield chunk

    gateway = serve(GET=acount if kind == "async" else count)
    stream = gateway.send()
    while gateway.read(0.3):
        pass
    sent = sum(len(payload) for frame, payload in gateway.frames[stream] if frame == wire.CHUNK)
    assert wire.WINDOW_BYTES <= sent <= wire.WINDOW_BYTES + 16384 and gateway.log.count("made") <= sent // 16384 + 1
    gateway.frame(stream, wire.CREDIT, (65536).to_bytes(4, "big"))
    more = 0
    while more < 65536:
        assert gateway.read()
        more = sum(len(payload) for frame, payload in gateway.frames[stream] if frame == wire.CHUNK) - sent
    gateway.frame(stream, wire.CANCEL, b"client")
    gateway.wait(stream, wire.FAIL)


# Failures ---------------------------------------------------------------------------------------------------------


async def fails(at: int) -> AsyncIterator[str]:
    try:
        for number in range(at):
            yield f"chunk {number}"
        raise OSError("secret detail")
    finally:
        print("closed")


def sync_fails(at: int) -> Iterator[str]:
    for number in range(at):
        yield f"chunk {number}"
    raise OSError("secret detail")


@pytest.mark.parametrize("make", [fails, sync_fails])
@pytest.mark.parametrize("wrap", [Response, sse])
def test_failing_before_the_first_byte(serve: Callable[..., Any], make: Any, wrap: Any) -> None:
    answer = serve(GET=lambda: wrap(make(0))).call()
    assert answer.kinds == [wire.FAIL] and answer.failure[0] == "raised" and "secret detail" in answer.failure[1]


@pytest.mark.parametrize("make", [fails, sync_fails])
def test_failing_after_the_first_byte(serve: Callable[..., Any], make: Any) -> None:
    answer = serve(GET=lambda: make(2)).call()
    assert answer.chunks == [b"chunk 0", b"chunk 1"] and answer.kinds[-1] == wire.FAIL


@pytest.mark.parametrize("make", [fails, sync_fails])
def test_events_end_with_an_error(serve: Callable[..., Any], make: Any) -> None:
    answer = serve(GET=lambda: sse(make(1))).call()
    assert answer.chunks[0] == b"data: chunk 0\n\n" and answer.kinds[-1] == wire.FAIL
    event, data = answer.chunks[1].decode().split("\n", 1)
    assert event == "event: error" and "secret" not in data
    error = json.loads(data.removeprefix("data: "))["error"]
    assert error["code"] == "FUNCTION_INVOCATION_FAILED" and error["id"] == "id-1"


def test_an_error_never_lands_inside_an_event(serve: Callable[..., Any]) -> None:
    async def handler() -> AsyncIterator[str]:
        yield "data: half"
        raise OSError

    answer = serve(GET=lambda: Response(handler(), headers={"content-type": "text/event-stream"})).call()
    assert answer.text.startswith("data: half\n\nevent: error\ndata: {")


@pytest.mark.parametrize(
    "chunks",
    [[1], [None], [{"a": 1}], ["a", 5], [chat("a"), "text"], [["nested"]]],
    ids=lambda chunks: repr(chunks)[:20],
)
def test_chunks_of_other_types(serve: Callable[..., Any], chunks: list[Any]) -> None:
    kind, text = serve(GET=lambda: Response(agen(chunks))).call().failure
    assert kind == "raised" and "route.py: GET yielded" in text


def test_interrupts_before_the_first_byte(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        if request.query.get("go"):
            redirect("/there")
        not_found()
        yield "never"

    gateway = serve(GET=handler)
    assert gateway.call().status == 404
    assert gateway.call("GET", "/?go=1").fields == [("location", "/there")]


# Closing ----------------------------------------------------------------------------------------------------------


class FakeStream:
    """Shaped as openai.AsyncStream: a class with `__aiter__` as an async generator, and `close`."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for chunk in self.chunks:
                yield chunk
        finally:
            print("generator closed")

    async def close(self) -> None:
        print("stream closed")


def test_an_sdk_stream_is_closed(serve: Callable[..., Any]) -> None:
    gateway = serve(GET=lambda: FakeStream([chat("a")]), POST=lambda: FakeStream(["a", 5]))
    assert gateway.call("GET").chunks == [chat_line("a"), DONE]
    assert gateway.log == "generator closed\nstream closed\n"
    assert gateway.call("POST").failure[0] == "raised"
    assert gateway.log.count("stream closed") == 2
    assert gateway.call("HEAD").status == 200
    assert gateway.log.count("stream closed") == 3


def test_generators_are_closed_when_the_reader_leaves(serve: Callable[..., Any]) -> None:
    async def waits() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            print("async closed", flush=True)

    def sync_waits() -> Iterator[str]:
        try:
            yield "a"
            while True:
                time.sleep(0.01)
                yield ""
        finally:
            print("sync closed", flush=True)

    gateway = serve(GET=waits, POST=sync_waits)
    for method, closed in (("GET", "async closed"), ("POST", "sync closed")):
        stream = gateway.send(method)
        gateway.wait(stream, wire.CHUNK)
        gateway.frame(stream, wire.CANCEL, b"client")
        assert gateway.answer(stream).failure[0] == "cancelled"
        assert closed in gateway.log


def test_an_error_while_closing_is_only_logged(serve: Callable[..., Any]) -> None:
    class Broken(FakeStream):
        async def close(self) -> None:
            raise OSError("cannot close")

    gateway = serve(GET=lambda: Broken(["a"]))
    assert gateway.call().kinds[-1] == wire.END
    assert "cannot close" in gateway.log


# Keep-alive -------------------------------------------------------------------------------------------------------


def test_keep_alive_before_and_between_events(serve: Callable[..., Any]) -> None:
    async def slow() -> AsyncIterator[str]:
        await asyncio.sleep(0.15)
        yield "a"
        await asyncio.sleep(0.15)
        yield "b"

    answer = serve(GET=lambda: sse(slow()), keepalive_s=0.05).call()
    comment = b": keep-alive\n\n"
    assert answer.fields == SSE and answer.chunks[0] == comment
    a, b = answer.chunks.index(b"data: a\n\n"), answer.chunks.index(b"data: b\n\n")
    assert set(answer.chunks[:a] + answer.chunks[a + 1 : b]) == {comment} and answer.kinds[-1] == wire.END


def test_keep_alive_of_models_begins_with_the_first(serve: Callable[..., Any]) -> None:
    async def slow() -> AsyncIterator[Any]:
        yield chat("a")
        await asyncio.sleep(0.12)
        yield chat("b")

    assert b": keep-alive\n\n" in serve(GET=slow, keepalive_s=0.05).call().chunks


def test_no_keep_alive_in_other_streams_or_inside_an_event(serve: Callable[..., Any]) -> None:
    async def slow() -> AsyncIterator[str]:
        yield "data: a"
        await asyncio.sleep(0.15)
        yield "\n\n"

    gateway = serve(
        GET=slow, POST=lambda: Response(slow(), headers={"content-type": "text/event-stream"}), keepalive_s=0.04
    )
    for method in ("GET", "POST"):
        assert gateway.call(method).body == b"data: a\n\n"


def test_a_failure_after_a_keep_alive_is_an_error_event(serve: Callable[..., Any]) -> None:
    async def slow() -> AsyncIterator[str]:
        await asyncio.sleep(0.12)
        raise OSError
        yield

    answer = serve(GET=lambda: sse(slow()), keepalive_s=0.05).call()
    assert answer.chunks[0] == b": keep-alive\n\n" and answer.chunks[-1].startswith(b"event: error\n")
    assert answer.kinds[-1] == wire.FAIL


def test_iterating_an_event_stream_gives_its_bytes() -> None:
    async def collect() -> list[bytes]:
        return [data async for data in sse(gen(["a", {"b": 1}]))]

    assert asyncio.run(collect()) == [b"data: a\n\n", b'data: {"b":1}\n\n']


@pytest.mark.parametrize("event", [Event("x", event="a\nb"), Event("x", id="a\0"), Event("x", id="\r")])
def test_fields_of_an_event_are_one_line(event: Event) -> None:
    async def collect() -> None:
        async for _ in sse([event]):
            pass

    with pytest.raises(ValueError, match="one line"):
        asyncio.run(collect())


def test_not_an_iterable() -> None:
    with pytest.raises(TypeError):
        sse(5)
