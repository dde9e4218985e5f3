"""Answers kept for the same request of the same function: which may be, under what key, and for how long. Pure.

They are kept as the provider has sent them and masked each time they are given, with the keys that there are then.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from typing import NamedTuple

from lampyr.broker.desk import Provider
from lampyr.broker.wire import Headers, Question, request_headers

# Of all functions together; what has not been asked for longest goes first.
MOST_BYTES = 64 * 1024 * 1024
MOST_ANSWER_BYTES = 8 * 1024 * 1024
# What an answer takes beside its own bytes.
OVERHEAD_BYTES = 1024
SWEEP_EVERY_S = 60.0

_VECTORS = "/embeddings"
_TEXTS = ("/chat/completions", "/completions", "/responses", "/messages")
# What makes an answer depend on more than the request: what is stored at the provider, or found on the web.
_ELSEWHERE = (
    *("background", "container", "conversation", "mcp_servers", "previous_response_id"),
    "web_search_options",
)
_TOOLS_OF_THE_FUNCTION = (None, "function", "custom")
# Different each time, and no provider answers otherwise for it.
_PASSING_BY = re.compile(rb"traceparent|tracestate|baggage|user-agent|x-stainless-.*")
# About the call that was made then.
_PASSED = re.compile(rb"age|retry-after|x-should-retry|.*ratelimit-.*")
_FRESH = re.compile(rb"(?i)\b(?:no-cache|no-store)\b")


class Key(NamedTuple):
    """What stands for a request, and for how long its answer may be kept."""

    digest: bytes
    for_s: float


class Record:
    """The body of an answer, while it comes, up to what is kept."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def feed(self, piece: bytes) -> None:
        """More of it."""
        self._size_bytes += len(piece)
        if self._size_bytes <= MOST_ANSWER_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def body(self) -> bytes:
        """All of it; b"" where that is too much."""
        return b"".join(self._pieces) if self._size_bytes <= MOST_ANSWER_BYTES else b""


class Kept(NamedTuple):
    """The headers and the body of a 200, and until when it may be given."""

    headers: Headers
    body: bytes
    until_s: float

    @property
    def size_bytes(self) -> int:
        """Of memory, about."""
        return OVERHEAD_BYTES + len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


class Cache:
    """The answers that there are. Times are in seconds of one clock."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()  # the last one was asked for last
        self._sweep_s = 0.0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Key | None, now_s: float) -> Kept | None:
        """The answer under a key; None where there is none that may still be given, or no key."""
        if key is None or (kept := self._kept.get(key.digest)) is None:
            return None
        if kept.until_s <= now_s:
            self._drop(key.digest)
            return None
        self._kept.move_to_end(key.digest)
        return kept

    def keep(self, record: Record, headers: Headers, now_s: float) -> None:
        """Keep a 200, if its body says that it is a whole one, and let go of what is too much or too old."""
        (digest, for_s), body = record.key, record.body()
        kept = Kept([one for one in headers if not _PASSED.fullmatch(one[0].lower())], body, now_s + for_s)
        if kept.size_bytes > self._most_bytes or not _is_whole(body):
            return
        self._drop(digest)
        self._kept[digest] = kept
        self.size_bytes += kept.size_bytes
        if now_s >= self._sweep_s:
            self._sweep_s = now_s + SWEEP_EVERY_S
            for old in [one for one, kept in self._kept.items() if kept.until_s <= now_s]:
                self._drop(old)
        while self.size_bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, digest: bytes) -> None:
        if (kept := self._kept.pop(digest, None)) is not None:
            self.size_bytes -= kept.size_bytes


def key_of(route: str, provider: Provider, question: Question) -> Key | None:
    """What stands for a request of the function at `route`; None where its answer is not to be kept.

    Two that differ in anything a provider may answer to, in their function or in the provider's address or key have
    different ones.
    """
    if provider.cache is None or not _is_deterministic(question):
        return None
    headers = [part for one in request_headers(provider, question.headers) if _tells(one[0]) for part in one]
    names = (route, provider.name, provider.kind, provider.base_url, question.method, question.rest)
    digest = hashlib.sha256()
    for part in (*(name.encode("utf-8", "surrogatepass") for name in names), *headers, question.body):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return Key(digest.digest(), provider.cache)


def _tells(header: bytes) -> bool:
    return not _PASSING_BY.fullmatch(header)


def _is_deterministic(question: Question) -> bool:
    """Whether the same request has the same answer, and one that comes whole."""
    asked, path = question.asked, question.path.removeprefix("/v1")
    if question.method != "POST" or not asked or asked.get("stream"):
        return False
    if any(name == b"cache-control" and _FRESH.search(value) for name, value in question.headers):
        return False
    if path == _VECTORS:
        return True
    temperature = asked.get("temperature")
    exact = type(temperature) in (int, float) and temperature == 0
    stored = isinstance(asked.get("prompt"), dict) or any(asked.get(name) for name in _ELSEWHERE)
    return path in _TEXTS and exact and not stored and _has_own_tools(asked)


def _has_own_tools(asked: dict[str, object]) -> bool:
    """Whether the provider calls no tool by itself."""
    tools = asked.get("tools") or []
    return isinstance(tools, list) and all(
        isinstance(one, dict) and one.get("type") in _TOOLS_OF_THE_FUNCTION for one in tools
    )


def _is_whole(body: bytes) -> bool:
    """Whether it is JSON that tells of no failure within a 200."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(found, dict) and not found.get("error") and found.get("status") in (None, "completed", "incomplete")
    )
