"""What a request may use, before anybody has answered it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

# English is about four bytes a token, other languages and code rather three; a few more for each message.
BYTES_A_TOKEN, MOST_BYTES_A_TOKEN = 4, 3
TOKENS_A_TEXT = 4
# A picture or a recording, whose bytes say nothing about its tokens.
TOKENS_A_FILE = 2000
# What is kept for an answer whose request sets no limit.
ANSWER_TOKENS = 1024
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_SILENT = ("/embeddings", "/moderations", "/count_tokens")
MOST_ANSWERS = 128


class Estimate(NamedTuple):
    """Tokens: of the prompt, likely and at most, and of the answer at most."""

    prompt: int
    most_prompt: int
    most_answer: int


def estimate(path: str, asked: dict[str, Any], body_bytes: int) -> Estimate:
    """What a request to `path` may use; `asked` is its JSON, {} where it is none."""
    if not body_bytes:
        return Estimate(0, 0, 0)
    if not asked:
        return Estimate(TOKENS_A_FILE, TOKENS_A_FILE, ANSWER_TOKENS)
    size = likely = most = 0
    for text in _texts(asked):
        if text.startswith("data:") or (len(text) > 4096 and " " not in text[:4096]):
            likely, most = likely + TOKENS_A_FILE, most + TOKENS_A_FILE
        else:
            size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            most += TOKENS_A_TEXT
    return Estimate(likely + size // BYTES_A_TOKEN, most + size // MOST_BYTES_A_TOKEN, _answer(path, asked))


def _answer(path: str, asked: dict[str, Any]) -> int:
    if path.endswith(_SILENT):
        return 0
    limit = next((value for name in _LIMITS if (value := _whole(asked.get(name)))), ANSWER_TOKENS)
    return limit * min(_whole(asked.get("n")) or 1, MOST_ANSWERS)


def _whole(value: object) -> int:
    return value if type(value) is int and 0 < value < 2**31 else 0


def _texts(value: object) -> Iterator[str]:
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            pending += one.values()
        elif isinstance(one, list):
            pending += one
