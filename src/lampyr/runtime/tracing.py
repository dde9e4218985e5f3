"""What a function sends while it handles a request of a trace belongs to that trace: its clients say so.

The HTTP clients that it imports are shown how: httpx, httpx2 (the SDKs of OpenAI and Anthropic), aiohttp, and
http.client (urllib, urllib3, requests). Who sets the header, as OpenTelemetry's instrumentations do, has the say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from lampyr.runtime import clients, context

HEADERS = ("traceparent", "tracestate")


def pass_on_traces() -> None:
    """Have clients pass on the trace of the request that is being handled."""
    clients.teach({"httpx2": _httpx, "httpx": _httpx, "aiohttp.client_reqrep": _aiohttp, "http.client": _http_client})


def _httpx(module: Any) -> None:
    module.Request.__init__ = _made(module.Request.__init__)


def _aiohttp(module: Any) -> None:
    module.ClientRequest.__init__ = _made(module.ClientRequest.__init__)


def _http_client(module: Any) -> None:
    module.HTTPConnection.endheaders = _ended(module.HTTPConnection.endheaders)


def _trace() -> list[tuple[str, str]]:
    """The headers that say it; none outside of an invocation, or where its request has none."""
    current = context.current.get(None)
    if current is None:
        return []
    headers = current.request.headers
    if HEADERS[0] not in headers:
        return []
    return [(name, value) for name in HEADERS if (value := headers.get(name)) is not None]


def _made(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def made(self: Any, *arguments: Any, **keywords: Any) -> None:
        init(self, *arguments, **keywords)
        if HEADERS[0] not in self.headers:
            self.headers.update(_trace())

    return made


def _ended(end: Callable[..., None]) -> Callable[..., None]:
    @wraps(end)
    def ended(self: Any, *arguments: Any, **keywords: Any) -> None:
        said = any(line[:12].lower() == b"traceparent:" for line in self._buffer)
        for name, value in () if said else _trace():
            self.putheader(name, value)
        end(self, *arguments, **keywords)

    return ended
