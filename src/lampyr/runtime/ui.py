"""The UI message stream of the Vercel AI SDK (version 5 and later), which `useChat` reads.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol. Parts hold exactly the documented keys: version 5 refuses others.
"""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import uuid4

from lampyr.core.codes import CODES
from lampyr.runtime import json_text
from lampyr.runtime.stream import DONE, EVENT_FIELDS, Encoder, EventStream, Fields


def ui_messages(iterable: Any) -> EventStream:
    """Send `iterable` as a message for `useChat`.

    It yields text, chunks of an OpenAI chat or Responses stream, or events of an Anthropic stream. A dict is sent as a
    part of its own ({"type": "data-...", ...}); a stream that begins with {"type": "start"} frames its message itself.
    Return the result, or give it to `Response`.
    """
    return EventStream(iterable, Parts)


class Parts(Encoder):
    """Writes one message: start, start-step, text and other parts, finish-step, finish, [DONE]."""

    fields: ClassVar[Fields] = (*EVENT_FIELDS, (b"x-vercel-ai-ui-message-stream", b"v1"))

    def __init__(self) -> None:
        self._started = False
        self._framed = False  # the handler writes start and finish itself, and what belongs to them
        self._open: str | None = None  # "text" or "reasoning": the part that grows
        self._count = 0
        self._tools: dict[Any, list[str]] = {}  # index -> [call id, name, arguments so far]
        self._out: list[bytes] = []

    def encode(self, chunk: Any) -> bytes:
        self._start(chunk)
        if isinstance(chunk, str):
            self._grow("text", chunk)
        elif isinstance(chunk, dict) and "type" in chunk and not _is_provider(chunk):
            self._close()
            self._part(chunk)
        else:
            self._model(chunk)
        return self._take()

    def end(self) -> bytes:
        self._start(None)
        self._close()
        self._close_tools()
        if not self._framed:
            self._part({"type": "finish-step"})
            self._part({"type": "finish"})
        self._out.append(DONE)
        return self._take()

    def failure(self, id: str) -> bytes:
        message = f"FUNCTION_INVOCATION_FAILED: {CODES['FUNCTION_INVOCATION_FAILED'].message} ({id})"
        self._part({"type": "error", "errorText": message})
        return b"event: error\n" + self._take()

    def _model(self, chunk: Any) -> None:
        """A chunk of a provider's stream, as an SDK's object or as a dict."""
        kind = _get(chunk, "type")
        choices = _get(chunk, "choices")
        if choices is not None:
            for choice in choices[:1]:
                self._openai_delta(_get(choice, "delta"))
        elif isinstance(kind, str) and kind.startswith("response."):
            self._openai_event(kind, chunk)
        elif isinstance(kind, str):
            self._anthropic_event(kind, chunk)
        else:
            raise TypeError(f"ui_messages() was given {type(chunk).__name__}; it takes text or a provider's chunks")

    def _openai_delta(self, delta: Any) -> None:
        if delta is None:
            return
        # Providers with OpenAI's protocol send their reasoning under one of these names.
        self._grow("reasoning", _get(delta, "reasoning_content") or _get(delta, "reasoning"))
        self._grow("text", _get(delta, "content"))
        for call in _get(delta, "tool_calls") or ():
            function = _get(call, "function")
            name = function and _get(function, "name")
            self._tool(_get(call, "index"), _get(call, "id"), name, function and _get(function, "arguments"))

    def _openai_event(self, kind: str, event: Any) -> None:
        if kind == "response.output_text.delta":
            self._grow("text", _get(event, "delta"))
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._grow("reasoning", _get(event, "delta"))
        elif kind == "response.output_item.added":
            item = _get(event, "item")
            if _get(item, "type") == "function_call":
                self._tool(_get(event, "output_index"), _get(item, "call_id"), _get(item, "name"), None)
        elif kind == "response.function_call_arguments.delta":
            self._tool(_get(event, "output_index"), None, None, _get(event, "delta"))

    def _anthropic_event(self, kind: str, event: Any) -> None:
        if kind == "content_block_start":
            block = _get(event, "content_block")
            if _get(block, "type") == "tool_use":
                self._tool(_get(event, "index"), _get(block, "id"), _get(block, "name"), None)
        elif kind == "content_block_delta":
            delta = _get(event, "delta")
            self._grow("text", _get(delta, "text"))
            self._grow("reasoning", _get(delta, "thinking"))
            if _get(delta, "partial_json"):
                self._tool(_get(event, "index"), None, None, _get(delta, "partial_json"))
        elif kind == "content_block_stop":
            self._close()

    def _start(self, first: Any) -> None:
        if self._started:
            return
        self._started = True
        self._framed = isinstance(first, dict) and first.get("type") == "start"
        if not self._framed:
            self._part({"type": "start", "messageId": f"msg-{uuid4().hex}"})
            self._part({"type": "start-step"})

    def _grow(self, kind: str, text: Any) -> None:
        """Add `text` to the open part of that kind, opening one if needed."""
        if not isinstance(text, str) or not text:
            return
        if self._open != kind:
            self._close()
            self._open = kind
            self._count += 1
            self._part({"type": f"{kind}-start", "id": f"{kind}-{self._count}"})
        self._part({"type": f"{kind}-delta", "id": f"{kind}-{self._count}", "delta": text})

    def _close(self) -> None:
        if self._open is not None:
            self._part({"type": f"{self._open}-end", "id": f"{self._open}-{self._count}"})
            self._open = None

    def _tool(self, index: Any, id: Any, name: Any, arguments: Any) -> None:
        """A tool call begins, or more of its arguments (JSON text) have come."""
        self._close()
        if index not in self._tools:
            self._tools[index] = [id or f"call-{len(self._tools) + 1}", name or "", ""]
            self._part({"type": "tool-input-start", "toolCallId": self._tools[index][0], "toolName": name or ""})
        call = self._tools[index]
        if arguments:
            call[2] += arguments
            self._part({"type": "tool-input-delta", "toolCallId": call[0], "inputTextDelta": arguments})

    def _close_tools(self) -> None:
        for id, name, arguments in self._tools.values():
            try:
                value = json_text.decode(arguments.encode() or b"{}")
            except ValueError:
                continue  # cut off by the model: the reader keeps what it has
            self._part({"type": "tool-input-available", "toolCallId": id, "toolName": name, "input": value})

    def _part(self, part: dict[str, Any]) -> None:
        self._out.append(b"data: " + json_text.encode(part) + b"\n\n")

    def _take(self) -> bytes:
        data = b"".join(self._out)
        self._out.clear()
        return data


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def _is_provider(chunk: dict[str, Any]) -> bool:
    kind = chunk["type"]
    provider = ("response.", "content_block_", "message_")
    return "choices" in chunk or (isinstance(kind, str) and kind.startswith(provider)) or kind == "ping"
