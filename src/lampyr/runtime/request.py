"""What a handler sees of a request. Nothing is parsed before it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from json import loads
from time import monotonic
from typing import TYPE_CHECKING, Any

from lampyr.errors import BadRequest
from lampyr.runtime import json_text, wire
from lampyr.runtime.cookies import RequestCookies, parse_cookies
from lampyr.runtime.headers import Headers
from lampyr.runtime.query import Query

if TYPE_CHECKING:
    from asyncio import Future

    from lampyr.runtime.forms import Form

# Inside Request the name `bytes` is a method.
_Bytes = bytes


class Body:
    """A request body that has arrived: `data`, or one that has not, where `data` is None."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    async def next(self) -> bytes:
        """The next piece, or b"" once there is none. Raises ClientDisconnect."""
        data, self.data = self.data, b""
        return data or b""

    async def all(self) -> bytes:
        """Everything that is left. Raises ClientDisconnect."""
        return await self.next()


class Signal:
    """Tells a handler that nobody waits for its answer any more."""

    __slots__ = ("_waiters", "aborted")

    def __init__(self) -> None:
        self.aborted = False
        self._waiters: list[Future[None]] = []

    async def wait(self) -> None:
        """Return once the client has left or the time is up."""
        if not self.aborted:
            from asyncio import get_running_loop

            waiter = get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def fire(self) -> None:
        """The platform's side: the client has left."""
        self.aborted = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.get_loop().call_soon_threadsafe(_settle, waiter)
        self._waiters.clear()


def _settle(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Request:
    """One request. Its body can be read once: by `json`, `text`, `bytes`, `form` or `stream`."""

    __slots__ = (
        "_arrived", "_body", "_cookies", "_fields", "_form", "_headers", "_params", "_query", "_signal", "_used",
        "method",
    )  # fmt: skip

    def __init__(self, fields: list[bytes], body: Body) -> None:
        self._fields = fields
        self._body = body
        self._used = False
        self.method: str = fields[wire.METHOD].decode("latin-1")
        self._arrived = monotonic()
        self._headers: Headers | None = None
        self._query: Query | None = None
        self._cookies: RequestCookies | None = None
        self._params: dict[str, str | list[str]] | None = None
        self._signal: Signal | None = None
        self._form: Form | None = None

    @property
    def id(self) -> str:
        """The id of this invocation, the same as in `x-lampyr-id` and the log."""
        return self._fields[wire.ID].decode("latin-1")

    @property
    def url(self) -> str:
        """The absolute URL: scheme, host, path and query, percent-encoded."""
        fields = self._fields
        url = fields[wire.ORIGIN] + fields[wire.PATH]
        return (url + b"?" + fields[wire.QUERY] if fields[wire.QUERY] else url).decode("latin-1")

    @property
    def path(self) -> str:
        """The path of the URL, normalised and percent-encoded; `params` has its parts decoded."""
        return self._fields[wire.PATH].decode("latin-1")

    @property
    def query(self) -> Query:
        """The query, read as the WHATWG URL standard says."""
        if self._query is None:
            from lampyr.runtime.query import parse_urlencoded

            self._query = Query(parse_urlencoded(self._fields[wire.QUERY]))
        return self._query

    @property
    def headers(self) -> Headers:
        """The header fields, read-only; names are matched without regard to case."""
        if self._headers is None:
            self._headers = Headers(self._fields[wire.HEADERS :])
        return self._headers

    @property
    def cookies(self) -> RequestCookies:
        """The cookies the browser sent."""
        if self._cookies is None:
            fields = self._fields
            at = range(wire.HEADERS, len(fields), 2)
            self._cookies = RequestCookies(parse_cookies([fields[i + 1] for i in at if fields[i] == b"cookie"]))
        return self._cookies

    @property
    def params(self) -> dict[str, str | list[str]]:
        """What the folders in brackets stand for: a str for `[id]`, a list for `[...all]`; decoded."""
        if self._params is None:
            params = self._fields[wire.PARAMS]
            self._params = loads(params) if params else {}
        return self._params

    @property
    def ip(self) -> str:
        """The address of the client."""
        return self._fields[wire.IP].decode("latin-1")

    @property
    def geo(self) -> dict[str, str]:
        """Where the client is, as far as a point of presence knows: `country`, `city`... Empty elsewhere."""
        return {}

    @property
    def region(self) -> str | None:
        """The region that serves this request; None outside a fleet."""
        return self._fields[wire.REGION].decode("latin-1") or None

    @property
    def deadline(self) -> float | None:
        """Seconds left until the platform ends this invocation, never below 0; None without a limit."""
        left = self._fields[wire.DEADLINE]
        return max(0.0, self._arrived + float(left) - monotonic()) if left else None

    @property
    def signal(self) -> Signal:
        """`aborted` turns true, and `await wait()` returns, when the client has left or the time is up."""
        if self._signal is None:
            self._signal = Signal()
        return self._signal

    async def json(self) -> Any:
        """The body as JSON, whatever its Content-Type. Raises BadRequest."""
        self._use()
        data = self._body.data
        return json_text.decode(data if data is not None else await self._body.all())

    async def text(self) -> str:
        """The body as UTF-8 without its BOM; invalid bytes become U+FFFD."""
        return (await self.bytes()).removeprefix(json_text.BOM).decode("utf-8", "replace")

    async def bytes(self) -> bytes:
        """The body as it came."""
        self._use()
        return await self._body.all()

    async def form(self) -> Form:
        """The body as a form, urlencoded or multipart. Raises BadRequest."""
        from lampyr.runtime import forms

        content_type = self.headers.get("content-type")
        if content_type is None:
            raise BadRequest("A form needs a Content-Type header.")
        self._use()
        self._form = await forms.read(content_type, self._body)
        return self._form

    def stream(self) -> AsyncIterator[_Bytes]:
        """The body piece by piece, as it arrives."""
        self._use()
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[_Bytes]:
        while piece := await self._body.next():
            yield piece

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("the request body has been read already; it can be read once, so keep the result")
        self._used = True

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"
