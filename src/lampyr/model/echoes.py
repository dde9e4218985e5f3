"""The echo in the other wire formats: OpenAI's responses and embeddings, Anthropic's messages. Deterministic."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from math import sqrt
from typing import Any

from lampyr.model import echo
from lampyr.model.presence import Presence
from lampyr.model.wire import Reply, WireError, event, read

DIMENSIONS = 256
MOST_DIMENSIONS = 4096


def messages(body: bytes, presence: Presence) -> Reply:
    """Anthropic's messages (POST /v1/messages)."""
    asked = read(body)
    said = _messages(asked, "messages")
    words, finish = echo.cut(echo.answer(said), asked)
    reason = "max_tokens" if finish == "length" else "end_turn"
    read_tokens = echo.tokens([*said, {"content": asked.get("system")}])
    head = {"id": echo.id_of("msg_", said), "type": "message", "role": "assistant", "model": echo.ID}
    usage = {"input_tokens": read_tokens, "output_tokens": len(words)}
    if asked.get("stream"):
        return Reply(200, _message_events(head, words, reason, usage, presence))
    content = [{"type": "text", "text": "".join(words)}]
    whole = {**head, "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}
    return _json(whole)


def count_tokens(body: bytes, presence: Presence) -> Reply:
    """Anthropic's count of a prompt's tokens (POST /v1/messages/count_tokens)."""
    asked = read(body)
    return _json({"input_tokens": echo.tokens([*_messages(asked, "messages"), {"content": asked.get("system")}])})


def _message_events(
    head: dict[str, Any], words: list[str], reason: str, usage: dict[str, int], presence: Presence
) -> Iterator[bytes]:
    begun = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    yield _named({"type": "message_start", "message": begun})
    yield _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for word in words:
        yield _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
        if presence.wait(echo.pause_s(words)):
            return
    yield _named({"type": "content_block_stop", "index": 0})
    stop = {"stop_reason": reason, "stop_sequence": None}
    yield _named({"type": "message_delta", "delta": stop, "usage": {"output_tokens": usage["output_tokens"]}})
    yield _named({"type": "message_stop"})


def responses(body: bytes, presence: Presence) -> Reply:
    """OpenAI's responses (POST /v1/responses)."""
    asked = read(body)
    given = asked.get("input")
    said = [{"role": "user", "content": given}] if isinstance(given, str) else _messages(asked, "input")
    words, finish = echo.cut(echo.answer(said), asked)
    read_tokens = echo.tokens([*said, {"content": asked.get("instructions")}])
    response = _response(asked, said, words, finish, read_tokens)
    if asked.get("stream"):
        return Reply(200, _response_events(response, words, presence))
    return _json(response)


def _response(
    asked: dict[str, Any], said: list[dict[str, Any]], words: list[str], finish: str, read_tokens: int
) -> dict[str, Any]:
    cut = finish == "length"
    return {
        "id": echo.id_of("resp_", said),
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": echo.ID,
        "output": [_item(said, "completed", [_text("".join(words))])],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "metadata": {},
        "usage": {
            "input_tokens": read_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(words),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read_tokens + len(words),
        },
    }


def _item(said: list[dict[str, Any]], status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    id = echo.id_of("msg_", said)
    return {"type": "message", "id": id, "status": status, "role": "assistant", "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _response_events(response: dict[str, Any], words: list[str], presence: Presence) -> Iterator[bytes]:
    numbers = iter(range(10**9))
    item = response["output"][0]
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}

    def told(kind: str, **what: Any) -> bytes:
        return _named({"type": f"response.{kind}", "sequence_number": next(numbers), **what})

    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield told("created", response=begun)
    yield told("in_progress", response=begun)
    yield told("output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
    yield told("content_part.added", part=_text(""), **place)
    for word in words:
        yield told("output_text.delta", delta=word, logprobs=[], **place)
        if presence.wait(echo.pause_s(words)):
            return
    yield told("output_text.done", text="".join(words), logprobs=[], **place)
    yield told("content_part.done", part=item["content"][0], **place)
    yield told("output_item.done", output_index=0, item=item)
    yield told("incomplete" if response["incomplete_details"] else "completed", response=response)


def embeddings(body: bytes, presence: Presence) -> Reply:
    """OpenAI's embeddings (POST /v1/embeddings): of each text a vector of length 1, made from its hash."""
    asked = read(body)
    given = asked.get("input")
    texts = [given] if isinstance(given, str) or (isinstance(given, list) and given and _is_token(given[0])) else given
    if not isinstance(texts, list) or not texts:
        raise WireError(400, "'input' must be a text or a list of texts.", param="input")
    size = asked.get("dimensions") or DIMENSIONS
    if type(size) is not int or not 1 <= size <= MOST_DIMENSIONS:
        raise WireError(400, f"'dimensions' must be 1 to {MOST_DIMENSIONS}.", param="dimensions")
    vectors = (_vector(text if isinstance(text, str) else json.dumps(text), size) for text in texts)
    shown: Callable[[list[float]], Any] = _packed if asked.get("encoding_format") == "base64" else list
    data = [{"object": "embedding", "index": at, "embedding": shown(one)} for at, one in enumerate(vectors)]
    count = sum(len(echo.words(text)) if isinstance(text, str) else len(text) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return _json({"object": "list", "model": echo.ID, "data": data, "usage": usage})


def _is_token(value: object) -> bool:
    return type(value) is int


def _vector(text: str, size: int) -> list[float]:
    noise = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(2 * size)
    values = [value - 32767.5 for value in struct.unpack(f"<{size}H", noise)]
    length = sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def _packed(vector: Iterable[float]) -> str:
    values = list(vector)
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _messages(asked: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = asked.get(name)
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise WireError(400, f"'{name}' must be an array with at least one message.", param=name)
    return found


def _named(value: dict[str, Any]) -> bytes:
    return b"event: %b\n" % value["type"].encode() + event(value)


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode())


# What is answered at which address.
ADDRESSES = {
    "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens,
    "/v1/responses": responses,
    "/v1/embeddings": embeddings,
}
