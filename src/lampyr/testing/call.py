"""One request of a test: waits for its frames, keeps its time, and becomes an answer."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from lampyr.gateway import answers
from lampyr.runtime import wire
from lampyr.runtime.headers import Headers
from lampyr.runtime.invocation import DEADLINE
from lampyr.testing.host import OVER, PATIENCE_S, Host
from lampyr.types import Function

# The kinds of failure that have a code of their own.
CODES = {"memory": "FUNCTION_OUT_OF_MEMORY", "crashed": "FUNCTION_CRASHED"}
# What is waited for a handler that was told to stop.
GRACE_S = 1.0


class Cut(ConnectionError):
    """The response ended before it was complete, as a client sees it: `answer` holds what had come."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


class Answer:
    """A response. `traceback` is what the function's log says about a failure; a client never sees it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._fields: list[bytes] = []
        self._chunks: list[bytes] = []
        self.status = 0
        self.traceback = ""

    @property
    def id(self) -> str:
        """The id of the invocation."""
        return self.headers["x-lampyr-id"]

    @property
    def headers(self) -> Headers:
        """The header fields; `getall("set-cookie")` has each cookie apart."""
        return Headers(self._fields)

    @property
    def bytes(self) -> bytes:
        """The whole body. Reads the rest of a stream."""
        for _ in self.iter_chunks():
            pass
        return b"".join(self._chunks)

    @property
    def text(self) -> str:
        """The whole body as UTF-8."""
        return self.bytes.decode("utf-8", "replace")

    def json(self) -> Any:
        """The whole body as JSON."""
        return json.loads(self.bytes)

    @property
    def chunks(self) -> list[_Bytes]:
        """The body as it was sent: one piece per `yield`."""
        _ = self.bytes
        return list(self._chunks)

    def iter_chunks(self) -> Iterator[_Bytes]:
        """The pieces of the body that have not been read, each as soon as it is sent. Raises Cut."""
        while (chunk := self._call.next_chunk(self)) is not None:
            self._chunks.append(chunk)
            yield chunk

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"


# Inside Answer the name `bytes` is a property.
_Bytes = bytes


def too_large(function: Function, id: str) -> answers.Answer:
    """The answer to a body over `max_body`."""
    message = f"This function accepts bodies of up to {function.settings.max_body} bytes."
    return answers.error("FUNCTION_PAYLOAD_TOO_LARGE", message, id)


class Call:
    """One request on its way: waits for the frames of its invocation, and keeps its time."""

    def __init__(
        self,
        id: str,
        ready: answers.Answer | None,
        host: Host | None = None,
        function: Function | None = None,
    ) -> None:
        self.frames: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._id = id
        self._ready = ready
        self._host = host
        self._function = function
        self._stream = 0
        self._silent = False
        self._over = host is None
        self._complete = host is None
        self._began = time.monotonic()
        self._first: bytes | None = None
        self._cancelled = False

    def heard(self, kind: int, payload: bytes) -> None:
        """What the host sends (see host.Listener)."""
        self.frames.put((kind, payload))

    def begin(self, fields: list[bytes], body: bytes | Iterable[bytes]) -> Call:
        assert self._host is not None and self._function is not None
        self._silent = fields[wire.METHOD] == b"HEAD"
        if isinstance(body, bytes):
            self._stream = self._host.begin(self, fields, body, True)
            return self
        self._stream = self._host.begin(self, fields, b"", False)
        sent = 0
        for piece in body:
            sent += len(piece)
            if sent > self._function.settings.max_body:
                self._ready = too_large(self._function, self._id)
                self._cancel(b"client")
                break
            self._host.tell(self._stream, wire.BODY, piece)
        self._host.tell(self._stream, wire.BODY_END)
        return self

    def head(self) -> Answer:
        """Wait for the head of the response."""
        answer = Answer(self)
        if self._ready is not None:
            return self._platform(answer, self._ready)
        while True:
            kind, payload = self._next(answer)
            if kind in (wire.ANSWER, wire.QUICK_ANSWER, wire.HEAD):
                fields, body = wire.split_head(payload)
                answer.status = int(fields[0])
                answer._fields = [*fields[1:], b"x-lampyr-id", self._id.encode()]
                self._complete = kind != wire.HEAD
                self._first = body or None
                return answer
            if kind == wire.FAIL:
                self._complete = True
                return self._platform(answer, self._failed(answer, payload))
            if kind == OVER:
                raise RuntimeError("the invocation ended without a response")

    def next_chunk(self, answer: Answer) -> bytes | None:
        """The next chunk, or None when the response is complete. Raises Cut."""
        first, self._first = self._first, None
        if first is not None:
            return first
        while not self._complete:
            kind, payload = self._next(answer)
            if kind == wire.CHUNK:
                assert self._host is not None
                self._host.tell(self._stream, wire.CREDIT, len(payload).to_bytes(4, "big"))
                return payload
            if kind in (wire.END, wire.FAIL, OVER):
                self._complete = True
                if kind == wire.FAIL:
                    self._failed(answer, payload)
                    raise Cut("the function failed after its first byte, and the response was cut", answer)
        return None

    def close(self) -> None:
        """Wait for `after`; where the response is not complete, leave as a client does."""
        host = self._host
        if host is None or self._over:
            return
        if not self._complete:
            self._cancel(b"client")
        until = time.monotonic() + (GRACE_S if self._cancelled else self._limit_s() or PATIENCE_S)
        try:
            while not self._over:
                self._get(until)
        except queue.Empty:
            self._cancel(DEADLINE)

    def _cancel(self, why: bytes) -> None:
        assert self._host is not None
        self._cancelled = True
        self._host.tell(self._stream, wire.CANCEL, why)

    def _limit_s(self) -> float | None:
        return self._function.settings.max_duration if self._function is not None else None

    def _get(self, until: float) -> tuple[int, bytes]:
        kind, payload = self.frames.get(timeout=max(0.0, until - time.monotonic()))
        self._over = self._over or kind == OVER
        return kind, payload

    def _next(self, answer: Answer) -> tuple[int, bytes]:
        """The next frame, within the function's limits (SPEC 2): 504 before the first byte, Cut after it."""
        assert self._function is not None and self._host is not None
        settings = self._function.settings
        limits = [("max_duration", settings.max_duration)]
        if settings.runtime == "edge" and answer.status == 0:
            limits.append(("first_byte_timeout", settings.first_byte_timeout))
        name, limit_s = min(
            ((name, limit) for name, limit in limits if limit is not None),
            key=lambda pair: pair[1],
            default=("patience", PATIENCE_S),
        )
        try:
            return self._get(self._began + limit_s)
        except queue.Empty:
            self._cancel(DEADLINE)
        if answer.status:
            self._complete = True
            raise Cut(f"the response took longer than {name}, {limit_s:g} s", answer)
        return wire.FAIL, f"{name}\0{limit_s}".encode()

    def _failed(self, answer: Answer, payload: bytes) -> answers.Answer:
        """What the gateway answers to a failure; its traceback goes to stderr, where pytest shows it."""
        word, _, text = payload.decode(errors="replace").partition("\0")
        if word == "bad_request":
            return answers.error("BAD_REQUEST", text, self._id)
        if word in ("max_duration", "first_byte_timeout", "patience"):
            return self._timed_out(word, float(text))
        answer.traceback = text
        print(text, file=sys.stderr)
        code = CODES.get(word, "FUNCTION_INVOCATION_FAILED")
        return answers.error(code, None, self._id)

    def _timed_out(self, limit: str, limit_s: float) -> answers.Answer:
        assert self._function is not None
        edge = self._function.settings.runtime == "edge"
        code = "EDGE_FUNCTION_INVOCATION_TIMEOUT" if edge else "FUNCTION_INVOCATION_TIMEOUT"
        elapsed_ms = round((time.monotonic() - self._began) * 1000, 1)
        return answers.error(code, None, self._id, limit=limit, limit_ms=round(limit_s * 1000), elapsed_ms=elapsed_ms)

    def _platform(self, answer: Answer, ready: answers.Answer) -> Answer:
        """An answer of the platform's own."""
        answer.status, headers, body = ready
        answer._fields = [part for pair in headers for part in pair] + [b"x-lampyr-id", self._id.encode()]
        self._complete = True
        self._first = None if self._silent else body or None
        return answer
