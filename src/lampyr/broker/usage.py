"""The tokens of a call, read from its answer as it passes by: whole JSON, or a stream of server-sent events."""

from __future__ import annotations

import json
import re
from typing import Any

# An answer whose usage does not come within so much JSON, or an event that is longer, is not read.
MOST_BYTES = 4 * 1024 * 1024
# About so many characters of a request are a token, where the provider has not said how many it read.
CHARS_A_TOKEN = 4


class Usage:
    """Tokens in and out, None until the provider has said them."""

    def __init__(self, content_type: bytes) -> None:
        self._events = content_type.startswith(b"text/event-stream")
        self._pending = b""
        self._lost = False
        self._deltas = 0
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None

    def feed(self, data: bytes) -> None:
        """Look at more of the answer."""
        if self._lost:
            return
        self._pending += data
        if self._events:
            *lines, self._pending = self._pending.split(b"\n")
            for line in lines:
                self._line(line)
        self._lost = len(self._pending) > MOST_BYTES

    def end(self) -> None:
        """The answer is complete."""
        if not self._lost:
            self._line(self._pending) if self._events else self._read(self._pending)

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._deltas += 1
            if b'"usage"' in line:
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

    def _note(self, usage: dict[str, Any]) -> None:
        # Anthropic counts what its cache has read and written beside the rest.
        cached = _count(usage, "cache_read_input_tokens", "cache_creation_input_tokens") or 0
        read = _count(usage, "prompt_tokens", "input_tokens")
        written = _count(usage, "completion_tokens", "output_tokens")
        self.tokens_in = self.tokens_in if read is None else read + cached
        self.tokens_out = self.tokens_out if written is None else written

    def estimate(self, request_bytes: int) -> tuple[int, int, bool]:
        """Tokens in and out, and whether any of them is a guess."""
        guessed = self._events and (self.tokens_in is None or self.tokens_out is None)
        if not guessed:
            return self.tokens_in or 0, self.tokens_out or 0, False
        read = self.tokens_in if self.tokens_in is not None else request_bytes // CHARS_A_TOKEN
        return read, max(self.tokens_out or 0, self._deltas), True


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
    found = [usage[name] for name in names if isinstance(usage.get(name), int)]
    return sum(found) if found else None
