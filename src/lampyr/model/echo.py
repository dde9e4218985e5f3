"""The echo: no language model, the same wire format, the same answer every time. For tests, and where no model is."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

from lampyr.model.presence import Presence
from lampyr.model.wire import Reply, event

ID = "echo"

# Slow enough to watch it grow, and never more than two seconds for a whole answer.
TOKEN_SECONDS = 0.01
ANSWER_SECONDS = 2.0
LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class Echo:
    """Answers with the words it was given, one word a token, and says that it is an echo."""

    id = ID

    def chat(self, request: dict[str, Any], presence: Presence) -> Reply:
        """An answer to a chat completion request that has passed `wire.checked`."""
        said, finish = cut(answer(request["messages"]), request)
        usage = _usage(tokens(request["messages"]), len(said))
        head = {"id": id_of("chatcmpl-", request["messages"]), "created": int(time.time()), "model": ID}
        if request.get("stream"):
            wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
            return Reply(200, _chunks(head, said, finish, usage if wants_usage else None, presence))
        message = {"role": "assistant", "content": "".join(said), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return Reply(
            200, json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        )


def _chunks(
    head: dict[str, Any], said: list[str], finish: str, usage: dict[str, int] | None, presence: Presence
) -> Iterator[bytes]:
    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(
            {**head, "object": "chat.completion.chunk", "choices": [choice], **({"usage": None} if usage else {})}
        )

    yield chunk({"role": "assistant", "content": ""})
    for word in said:
        yield chunk({"content": word})
        if presence.wait(pause_s(said)):
            return
    yield chunk({}, finish)
    if usage:
        yield event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def pause_s(said: list[str]) -> float:
    """How long one word of so many takes."""
    return min(TOKEN_SECONDS, ANSWER_SECONDS / max(1, len(said)))


def tokens(messages: list[dict[str, Any]]) -> int:
    """Of a prompt: a word is one."""
    return sum(len(words(_text(message))) for message in messages)


def answer(messages: list[dict[str, Any]]) -> str:
    """What the echo says to these."""
    said = next((_text(message) for message in reversed(messages) if message.get("role") == "user"), "")
    return f"This is the echo, not a language model. You wrote: {said.strip() or '(nothing)'}"


def _text(message: dict[str, Any]) -> str:
    """The words of a message: a string, or the text parts of a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return " ".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def words(text: str) -> list[str]:
    """A text in words, each with the space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def _limit(request: dict[str, Any]) -> int | None:
    limit = next((request[name] for name in LIMITS if request.get(name)), None)
    return limit if isinstance(limit, int) else None


def cut(text: str, request: dict[str, Any]) -> tuple[list[str], str]:
    """The words of an answer as far as the request wants them, and why they end."""
    said, limit = words(text), _limit(request)
    return (said[:limit], "length") if limit is not None and limit < len(said) else (said, "stop")


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def id_of(prefix: str, messages: list[dict[str, Any]]) -> str:
    """The same for the same messages."""
    return prefix + hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()[:24]
