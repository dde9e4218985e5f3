"""`ui_messages`: the UI message stream of the Vercel AI SDK, whose schema is strict about keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anthropic.types import RawContentBlockDeltaEvent, RawContentBlockStartEvent, RawContentBlockStopEvent
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import TypeAdapter

from lampyr import Response, ui_messages

# The keys that version 5 of the `ai` package accepts in each part (ui-message-chunks.ts, z.strictObject).
KEYS: dict[str, set[str]] = {
    "start": {"type", "messageId"},
    "start-step": {"type"},
    "text-start": {"type", "id"},
    "text-delta": {"type", "id", "delta"},
    "text-end": {"type", "id"},
    "reasoning-start": {"type", "id"},
    "reasoning-delta": {"type", "id", "delta"},
    "reasoning-end": {"type", "id"},
    "tool-input-start": {"type", "toolCallId", "toolName"},
    "tool-input-delta": {"type", "toolCallId", "inputTextDelta"},
    "tool-input-available": {"type", "toolCallId", "toolName", "input"},
    "finish-step": {"type"},
    "finish": {"type"},
    "data-weather": {"type", "data"},
    "error": {"type", "errorText"},
}


def parts(chunks: Any) -> list[dict[str, Any]]:
    async def collect() -> bytes:
        return b"".join([data async for data in ui_messages(chunks)])

    events = asyncio.run(collect()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def brief(chunks: Any) -> list[str]:
    """Each part as `type:content`, without the frame that every message has."""
    found = parts(chunks)
    for part in found:
        assert set(part) == KEYS[part["type"]], part
    assert [part["type"] for part in found[:2]] == ["start", "start-step"]
    assert [part["type"] for part in found[-2:]] == ["finish-step", "finish"]
    shown = ("delta", "toolName", "inputTextDelta", "input", "data")
    return [part["type"] + "".join(f":{part[key]}" for key in shown if key in part) for part in found[2:-2]]


def chat(**delta: Any) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return ChatCompletionChunk.model_validate(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )


def claude(**delta: Any) -> RawContentBlockDeltaEvent:
    return RawContentBlockDeltaEvent.model_validate({"type": "content_block_delta", "index": 1, "delta": delta})


def call(**function: Any) -> ChatCompletionChunk:
    return chat(tool_calls=[{"index": 0, "id": function.pop("id", None), "type": "function", "function": function}])


BLOCK = TypeAdapter(RawContentBlockStartEvent)
USE = {"type": "tool_use", "id": "t1", "name": "find", "input": {}}
TOOL = BLOCK.validate_python({"type": "content_block_start", "index": 1, "content_block": USE})
STOP = RawContentBlockStopEvent(type="content_block_stop", index=1)
GPT = ResponseTextDeltaEvent(
    type="response.output_text.delta",
    delta="Hi",
    content_index=0,
    item_id="i",
    output_index=0,
    sequence_number=1,
    logprobs=[],
)

TEXT = ["text-start", "text-delta:Hi", "text-delta: you", "text-end"]
HI = ["text-start", "text-delta:Hi", "text-end"]
MESSAGES: dict[str, tuple[list[Any], list[str]]] = {
    "text": (["Hi", " you"], TEXT),
    "nothing": ([], []),
    "empty chunks": (["", "Hi", "", " you"], TEXT),
    "openai chat": ([chat(role="assistant", content=""), chat(content="Hi"), chat(content=" you"), chat()], TEXT),
    "openai chat as dicts": (
        [{"choices": [{"delta": {"content": "Hi"}}]}, {"choices": [{"delta": {"content": " you"}}]}, {"choices": []}],
        TEXT,
    ),
    "openai responses": ([GPT], HI),
    "anthropic": (
        [
            {"type": "message_start", "message": {}},
            claude(type="text_delta", text="Hi"),
            claude(type="text_delta", text=" you"),
            STOP,
            {"type": "ping"},
        ],
        TEXT,
    ),
    "thinking first": (
        [claude(type="thinking_delta", thinking="hm"), claude(type="text_delta", text="Hi")],
        ["reasoning-start", "reasoning-delta:hm", "reasoning-end", *HI],
    ),
    "a tool of openai": (
        [call(id="t1", name="find", arguments=""), call(arguments='{"q":'), call(arguments="1}")],
        [
            "tool-input-start:find",
            'tool-input-delta:{"q":',
            "tool-input-delta:1}",
            "tool-input-available:find:{'q': 1}",
        ],
    ),
    "a tool of anthropic": (
        [claude(type="text_delta", text="Hi"), TOOL, claude(type="input_json_delta", partial_json='{"q":1}')],
        [*HI, "tool-input-start:find", 'tool-input-delta:{"q":1}', "tool-input-available:find:{'q': 1}"],
    ),
    "a tool cut off": (
        [call(id="t1", name="find", arguments='{"q"')],
        ["tool-input-start:find", 'tool-input-delta:{"q"'],
    ),
    "a part of its own": (["Hi", {"type": "data-weather", "data": 7}, "Hi"], [*HI, "data-weather:7", *HI]),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    chunks, expected = MESSAGES[name]
    assert brief(chunks) == expected


def test_a_message_framed_by_the_handler() -> None:
    own = [{"type": "start", "messageId": "m1"}, "Hi", {"type": "finish", "messageMetadata": {"tokens": 1}}]
    assert [part["type"] for part in parts(own)] == ["start", "text-start", "text-delta", "text-end", "finish"]


def test_each_part_of_text_has_an_id_of_its_own() -> None:
    ids = [
        part["id"] for part in parts(["a", {"type": "data-weather", "data": 1}, "b"]) if part["type"] == "text-start"
    ]
    assert len(set(ids)) == 2


def test_the_response(serve: Callable[..., Any]) -> None:
    async def words() -> AsyncIterator[str]:
        yield "Hi"
        yield " you"

    answer = serve(POST=lambda: Response(ui_messages(words()))).call("POST")
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answer.headers["content-type"] == "text/event-stream" and len(answer.chunks) == 3
    assert answer.chunks[1] == b'data: {"type":"text-delta","id":"text-1","delta":" you"}\n\n'


def test_a_failure_is_an_error_part(serve: Callable[..., Any]) -> None:
    async def words() -> AsyncIterator[str]:
        yield "Hi"
        raise OSError("secret detail")

    last = serve(POST=lambda: ui_messages(words())).call("POST").chunks[-1].decode()
    part = json.loads(last.splitlines()[1].removeprefix("data: "))
    assert set(part) == KEYS["error"] and "FUNCTION_INVOCATION_FAILED" in part["errorText"] and "secret" not in last


@pytest.mark.parametrize("chunk", [5, None, object(), b"bytes"])
def test_other_chunks(chunk: Any) -> None:
    with pytest.raises(TypeError):
        parts([chunk])
