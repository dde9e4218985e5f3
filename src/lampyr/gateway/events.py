"""The last event of an event stream that is cut, where the handler itself can say nothing any more."""

from __future__ import annotations

import json

from lampyr.core.events import Tail
from lampyr.gateway.answers import Headers, described


class Events:
    """Watches one stream of events pass. `parts`: of the UI message stream, whose readers refuse other shapes."""

    __slots__ = ("_parts", "_tail")

    def __init__(self, *, parts: bool) -> None:
        self._parts = parts
        self._tail = Tail()

    def passed(self, data: bytes) -> None:
        """This was sent."""
        self._tail.passed(data)

    def error(self, code: str, message: str | None, id: str, more: dict[str, object]) -> bytes:
        """Says why it is cut. Nothing within an event: what is there of that would be taken for all of it."""
        if not self._tail.between:
            return b""
        error = described(code, message, id, more)
        if self._parts:  # as runtime/ui.py has it
            value: dict[str, object] = {"type": "error", "errorText": f"{code}: {error['message']} ({id})"}
        else:
            value = {"type": "error", "error": error}
        return b"event: error\ndata: %b\n\n" % json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def of(headers: Headers) -> Events | None:
    """For a response with the handler's `headers`. None where it is no event stream, or nothing can be added to it."""
    found, parts = False, False
    for name, value in headers:
        if name == b"content-type":
            found = value.lower().startswith(b"text/event-stream")
        elif name == b"x-vercel-ai-ui-message-stream":
            parts = True
        elif name in (b"content-length", b"content-encoding"):
            return None
    return Events(parts=parts) if found else None
