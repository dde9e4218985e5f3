"""The playground's calls: to a function, by way of the gateway, as any client of this machine would make them.

The page cannot call the gateway itself: that is another origin, which need not know it. It is no way to anywhere else:
the address is the gateway's, and the path is a path.

The answer is lines of JSON: `{"ms", "status", "type", "id", "timing", "error"}` when the head has come, `{"ms",
"text"}` for each piece, `{"ms", "end"}` with "complete", "cut" or "too long"; `ms` since the call was made.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpcore2
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lampyr.console import facts
from lampyr.console.api import NUMBER, Endpoint, body_of, record
from lampyr.console.guard import Refused

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_PATH, MAX_HEADERS, MAX_FIELDS, MAX_BODY = 4000, 8000, 50, 1_000_000
MAX_AT_ONCE = 8
MAX_ANSWER_BYTES = 32 * 1024 * 1024
# As long as a function may take at most, and a little.
PATIENCE_S = 910.0
CLOSE_S = 5.0
# What is a connection's business, or would have the gateway believe things of the client.
NOT_SENT = frozenset(
    {
        *("connection", "content-length", "cookie", "expect", "host", "keep-alive", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
    }
)
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError)
_running = asyncio.Semaphore(MAX_AT_ONCE)


async def _play(request: Request, query: dict[str, Any]) -> Response:
    asked = await body_of(request)
    method, path, headers, body = _checked(asked)
    if _running.locked():
        raise Refused(429, "TOO_MANY", f"There are {MAX_AT_ONCE} calls of the playground already.")
    await _running.acquire()
    call = _Call()
    try:
        await call.send(facts.of(request).url, method, path, headers, body)
    except BaseException:
        await call.close()
        raise
    return _Passing(call)


class _Passing(StreamingResponse):
    """Passes an answer on; whoever leaves ends the call."""

    def __init__(self, call: _Call) -> None:
        super().__init__(call.lines(), media_type="application/x-ndjson")
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._call.close()


class _Call:
    """One call to the gateway, which holds a place of the playground until it is closed."""

    def __init__(self) -> None:
        self._pool = httpcore2.AsyncConnectionPool(http1=True, retries=0)
        self._answer: httpcore2.Response | None = None
        self._begun_s = time.perf_counter()

    async def send(self, url: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Returns when the head of the answer is there. Raises Refused where there is nobody at the other end."""
        parts = urlsplit(url)
        host = parts.hostname or "127.0.0.1"
        # What listens on every address of this machine is called on loopback.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        address = httpcore2.URL(scheme=b"http", host=host.encode(), port=parts.port, target=path.encode())
        fields = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        fields.append((b"host", parts.netloc.encode()))
        if body or method in ("POST", "PUT", "PATCH"):
            fields.append((b"content-length", str(len(body)).encode()))
        limits = {"connect": 5.0, "read": PATIENCE_S, "write": 60.0, "pool": 5.0}
        request = httpcore2.Request(
            method, address, headers=fields, content=body or None, extensions={"timeout": limits}
        )
        try:
            self._answer = await self._pool.handle_async_request(request)
        except _FAILURES as error:
            raise Refused(502, "NO_ANSWER", "The gateway has not answered.", str(error)) from None

    async def lines(self) -> AsyncIterator[str]:
        """The answer: its head, each piece when it comes, and how it ended."""
        assert self._answer is not None
        yield self._line(status=self._answer.status, **_facts(self._answer.headers))
        text, size, end = codecs.getincrementaldecoder("utf-8")("replace"), 0, "complete"
        try:
            async for piece in self._answer.aiter_stream():
                size += len(piece)
                yield self._line(text=text.decode(piece))
                if size > MAX_ANSWER_BYTES:
                    end = "too long"
                    break
        except _FAILURES:
            end = "cut"
        yield self._line(end=end)

    def _line(self, **told: object) -> str:
        ms = round((time.perf_counter() - self._begun_s) * 1000, 2)
        return json.dumps({"ms": ms, **told}, separators=(",", ":")) + "\n"

    async def close(self) -> None:
        """Let go of the connection, whatever came of it."""
        try:
            if self._answer is not None:
                await self._answer.aclose()
            await self._pool.aclose()
        finally:
            _running.release()


def _facts(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """What the page shows of the head of an answer."""
    found = {name.lower(): value.decode("latin-1") for name, value in headers}
    return {
        "type": found.get(b"content-type", ""),
        "id": found.get(b"x-lampyr-id", ""),
        "timing": found.get(b"server-timing", ""),
        "error": found.get(b"x-lampyr-error", ""),
    }


def _checked(asked: dict[str, Any]) -> tuple[str, str, list[tuple[str, str]], bytes]:
    """Method, path, headers and body. Raises Refused."""
    found = {name: asked.get(name, "") for name in ("method", "path", "headers", "body")}
    for name, value in found.items():
        if not isinstance(value, str):
            raise _bad(f"{name} is not text")
    if found["method"] not in METHODS:
        raise _bad(f"method is none of {', '.join(METHODS)}")
    path = found["path"]
    if not path.startswith("/") or len(path) > MAX_PATH or not all(33 <= ord(char) <= 126 for char in path):
        raise _bad(f"path does not begin with a slash, has more than {MAX_PATH} characters, or some that no URL has")
    if "#" in path:
        raise _bad("path has a #, which is never sent")
    try:
        body = found["body"].encode()
    except UnicodeEncodeError:
        raise _bad("body cannot be written as UTF-8") from None
    if len(body) > MAX_BODY:
        raise _bad(f"body has more than {MAX_BODY} bytes")
    return found["method"], path, _headers(found["headers"]), body


def _headers(text: str) -> list[tuple[str, str]]:
    """Lines of `name: value`. Raises Refused."""
    lines = [line.strip(" \t\r") for line in text.split("\n")]
    fields = [line.partition(":") for line in lines if line]
    if len(text) > MAX_HEADERS or len(fields) > MAX_FIELDS:
        raise _bad(f"headers are more than {MAX_HEADERS} characters or {MAX_FIELDS} lines")
    found = []
    for name, colon, value in fields:
        value = value.strip(" \t")
        if not colon or not name or not set(name) <= _TOKEN:
            raise _bad("headers are not lines of `name: value`")
        if not all(char == "\t" or 32 <= ord(char) <= 126 or 160 <= ord(char) <= 255 for char in value):
            raise _bad(f"the header {name} has characters that no header has")
        if name.lower() in NOT_SENT or name.lower().startswith("x-lampyr-"):
            raise _bad(f"the header {name} is not the playground's to set")
        found.append((name, value))
    return found


def _bad(what: str) -> Refused:
    return Refused(400, "BAD_REQUEST", f"The call cannot be made: {what}.")


ENDPOINTS = (
    Endpoint(
        "/api/play",
        "Calls a function by way of the gateway. Lines of JSON: the head of its answer, each piece, the end.",
        _play,
        record(ms=NUMBER),
        media_type="application/x-ndjson",
        method="POST",
        body={
            "type": "object",
            "properties": {
                "method": {"type": "string", "enum": list(METHODS)},
                "path": {"type": "string", "maxLength": MAX_PATH, "pattern": '^/[!-"$-~]*$'},
                "headers": {"type": "string", "maxLength": MAX_HEADERS, "default": "", "description": "name: value"},
                "body": {"type": "string", "maxLength": MAX_BODY, "default": ""},
            },
            "required": ["method", "path"],
        },
    ),
)
