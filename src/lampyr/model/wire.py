"""The OpenAI wire format: what a request must look like, and how replies, events and errors are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_BODY_BYTES = 4_500_000


class Reply(NamedTuple):
    """A JSON body, or the pieces of an event stream, each to be sent as it comes."""

    status: int
    body: bytes | Iterator[bytes]


class WireError(Exception):
    """An error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    def reply(self) -> Reply:
        """The error as it goes to the client."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        body = {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
        return Reply(self.status, json.dumps(body).encode())


def event(value: object) -> bytes:
    """One server-sent event (WHATWG HTML 9.2)."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def read(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises WireError."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise WireError(400, "The body is not valid JSON.") from None
    if not isinstance(request, dict):
        raise WireError(400, "The body is not a JSON object.")
    return request


def checked(body: bytes) -> dict[str, Any]:
    """The chat completion request in `body`. Raises WireError naming the first field that is wrong."""
    request = read(body)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise WireError(400, "'messages' must be an array with at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise WireError(400, f"'messages[{index}]' must be an object with a role.", param=f"messages[{index}]")
    if not isinstance(request.get("stream_options") or {}, dict):
        raise WireError(400, "'stream_options' must be an object.", param="stream_options")
    return request
