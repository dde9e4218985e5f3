"""The tokens of a call, read from its answer as it passes by: whole JSON, or a stream of server-sent events."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

# An answer whose usage does not come within so much JSON, or an event that is longer, is not read.
MOST_BYTES = 4 * 1024 * 1024


class Tokens(NamedTuple):
    """`read` holds all of the prompt, also what a cache of the provider's has read or written of it."""

    read: int
    written: int
    cached: int = 0
    written_to_cache: int = 0
    guessed: bool = False


class Usage:
    """Reads an answer that begins with these headers; `named`: also which model says that it answers."""

    def __init__(self, content_type: bytes, *, named: bool = False) -> None:
        self._events = content_type.startswith(b"text/event-stream")
        self._pending = b""
        self._lost = False
        self._ended = False
        self._deltas = 0
        self._read_tokens: int | None = None
        self._written: int | None = None
        self._cached = 0
        self._written_to_cache = 0
        self._unnamed = named
        self.model = ""

    def feed(self, data: bytes) -> None:
        """Look at more of the answer."""
        if self._lost:
            return
        self._pending += data
        if self._events:
            *lines, self._pending = self._pending.split(b"\n")
            for line in lines:
                self._line(line)
        if len(self._pending) > MOST_BYTES:
            self._lost, self._pending = True, b""

    def end(self) -> None:
        """The answer is complete."""
        self._ended = True
        if not self._lost:
            self._line(self._pending) if self._events else self._read(self._pending)

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._deltas += b'"delta"' in line or b'"text"' in line
            if b'"usage"' in line or (self._unnamed and b'"model"' in line):
                self._read(line[5:])

    def _read(self, text: bytes) -> None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict):
            # As it is; in the last event of OpenAI's responses; in the first of Anthropic's messages.
            for one in (found, found.get("response"), found.get("message")):
                if isinstance(one, dict) and isinstance(one.get("usage"), dict):
                    self._note(one["usage"])
                if self._unnamed and isinstance(one, dict) and isinstance(one.get("model"), str):
                    self._unnamed, self.model = False, one["model"]

    def _note(self, usage: dict[str, Any]) -> None:
        read = _count(usage, "prompt_tokens", "input_tokens")
        written = _count(usage, "completion_tokens", "output_tokens")
        self._written = self._written if written is None else written
        if read is None:
            return
        # Of OpenAI's count the cached are a part; Anthropic counts what its cache has read and written beside the rest.
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        part = _count(details, "cached_tokens") or 0 if isinstance(details, dict) else 0
        beside = _count(usage, "cache_read_input_tokens") or 0
        self._written_to_cache = _count(usage, "cache_creation_input_tokens") or 0
        self._read_tokens = read + beside + self._written_to_cache
        self._cached = min(part + beside, self._read_tokens - self._written_to_cache)

    def tokens(self, prompt: int) -> Tokens:
        """What has been said so far, or a guess: of an answer that was cut off, or of a stream that does not say it.

        `prompt` is a guess at how many tokens the request has.
        """
        silent = self._read_tokens is None or self._written is None
        if self._ended and not (silent and (self._events or self._lost)):
            return Tokens(self._read_tokens or 0, self._written or 0, self._cached, self._written_to_cache)
        read = self._read_tokens if self._read_tokens is not None else prompt
        return Tokens(read, max(self._written or 0, self._deltas), self._cached, self._written_to_cache, guessed=True)


class Trim:
    """Takes the event with the tokens out of a stream of chat completions whose function has not asked for it."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        """The events that are complete, without that one. Events come whole, so that nothing waits."""
        *events, self._pending = _EVENT_END.split(self._pending + data)
        if len(self._pending) > MOST_BYTES:
            events, self._pending = [*events, self._pending, b""], b""
        whole = zip(events[::2], events[1::2], strict=True)
        return b"".join(event + end for event, end in whole if not _only_tells_tokens(event))

    def end(self) -> bytes:
        """What is left."""
        return self._pending


_EVENT_END = re.compile(rb"(\r?\n\r?\n)")


def _only_tells_tokens(event: bytes) -> bool:
    if b'"usage"' not in event or not event.startswith(b"data:"):
        return False
    try:
        chunk = json.loads(event[5:])
    except (ValueError, RecursionError):
        return False
    return isinstance(chunk, dict) and chunk.get("choices") == [] and bool(chunk.get("usage"))


def _count(usage: dict[str, Any], *names: str) -> int | None:
    """The first of these that is a sane number."""
    found = (usage.get(name) for name in names)
    return next((one for one in found if type(one) is int and 0 <= one < 2**53), None)
