"""What a handler answers with: a status, header fields, cookies, and a body that is there or still to come."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, TypeAlias
from urllib.parse import quote

from lampyr.runtime import json_text
from lampyr.runtime.cookies import ResponseCookies
from lampyr.runtime.headers import HeaderInput, ResponseHeaders, fields_of

BodyInput: TypeAlias = "str | bytes | bytearray | memoryview | Iterable[Any] | AsyncIterable[Any] | None"

TEXT = b"text/plain;charset=UTF-8"
JSON = b"application/json"
NULL_BODY = frozenset((204, 205, 304))  # Fetch, "null body status"
REDIRECTS = frozenset((301, 302, 303, 307, 308))  # Fetch, "redirect status"
# What a URL may hold as it is (RFC 3986 2.2, 2.3), and "%" because it is escaped already.
URL_CHARACTERS = ":/?#[]@!$&'()*+,;=%-._~"


class Response:
    """An HTTP response.

    `body` may be None, str (sent as UTF-8), bytes, or any iterable or async iterable of chunks. Raises ValueError for a
    status outside 200-599, a body with 204, 205 or 304, and for header fields that cannot be sent.
    """

    __slots__ = ("_cookies", "_fields", "_headers", "_status", "body")

    def __init__(self, body: BodyInput = None, status: int = 200, headers: HeaderInput | None = None) -> None:
        self._status = status if type(status) is int and 200 <= status <= 599 else _checked_status(status)
        self._fields: list[bytes] = [] if headers is None else fields_of(headers)
        self._headers: ResponseHeaders | None = None
        self._cookies: ResponseCookies | None = None
        # bytes, or the iterable whose chunks are sent as they come, or None
        self.body: Any = body
        if body is None:
            return
        if status in NULL_BODY:
            raise ValueError(f"a response with status {status} has no body (Fetch, 'null body status')")
        if isinstance(body, str):
            self.body = encode_text(body)
            self._default_type(TEXT)
        elif not isinstance(body, bytes):
            self.body = _checked_body(body)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: HeaderInput | None = None) -> Response:
        """`value` as compact JSON. Raises TypeError for what JSON cannot hold, ValueError for NaN and Infinity."""
        response = cls(json_text.encode(value), status, headers)
        if headers is None:
            response._fields = [b"content-type", JSON]
        else:
            response._default_type(JSON)
        return response

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> Response:
        """A redirect to `url`, absolute or relative; `status` is 301, 302, 303, 307 or 308. Raises ValueError."""
        if status not in REDIRECTS:
            raise ValueError(f"{status!r} is not a redirect status: 301, 302, 303, 307 or 308")
        response = cls(None, status)
        response._fields += (b"location", _location(url))
        return response

    @property
    def status(self) -> int:
        """The status code."""
        return self._status

    @property
    def headers(self) -> ResponseHeaders:
        """The header fields; several of one name, Set-Cookie above all, stay separate."""
        if self._headers is None:
            self._headers = ResponseHeaders(self._fields)
        return self._headers

    @property
    def cookies(self) -> ResponseCookies:
        """Sets and deletes cookies."""
        if self._cookies is None:
            self._cookies = ResponseCookies()
        return self._cookies

    def fields(self, more: ResponseCookies | None = None) -> list[bytes]:
        """Status, name, value, name, value...: the head as it travels.

        `more` are cookies set by the `cookies()` helper. The handler's own Set-Cookie fields win over `cookies`, and
        those over `more`.
        """
        fields = [b"%d" % self._status, *self._fields]
        if self._cookies is None and more is None:
            return fields
        return with_cookies(fields, self._cookies, more)

    def _default_type(self, value: bytes) -> None:
        if b"content-type" not in self._fields[::2]:
            self._fields += (b"content-type", value)

    def __repr__(self) -> str:
        return f"<Response {self._status}>"


def with_cookies(fields: list[bytes], *jars: ResponseCookies | None) -> list[bytes]:
    """`fields` (status, name, value...) and a Set-Cookie field for each cookie that nothing before it has set."""
    fields = fields.copy()
    taken = {
        fields[at + 1].partition(b"=")[0].strip() for at in range(1, len(fields), 2) if fields[at] == b"set-cookie"
    }
    for jar in jars:
        for name, line in jar.lines.items() if jar is not None else ():
            if name.encode() not in taken:
                taken.add(name.encode())
                fields += (b"set-cookie", line)
    return fields


def encode_text(text: str) -> bytes:
    """`text` as UTF-8; a lone surrogate becomes U+FFFD (Web IDL, USVString)."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _checked_status(status: object) -> int:
    if isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599:
        return int(status)
    raise ValueError(f"{status!r} is not a response status: an int from 200 to 599")


def _checked_body(body: Any) -> Any:
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    if isinstance(body, dict):
        raise TypeError("the body of a Response cannot be a dict: use Response.json(...), or return the dict itself")
    if isinstance(body, Response):
        raise TypeError("the body of a Response cannot be another Response")
    if not hasattr(body, "__aiter__") and not hasattr(body, "__iter__"):
        raise TypeError(
            f"the body of a Response cannot be {type(body).__name__}: None, str, bytes or an iterable of chunks"
        )
    return body


def _location(url: str) -> bytes:
    if not isinstance(url, str):
        raise TypeError(f"a redirect goes to a URL as str, not {type(url).__name__}")
    if not url or any(character < " " or character == "\x7f" for character in url):
        raise ValueError(f"{url!r} is not a URL to redirect to")
    return quote(url, safe=URL_CHARACTERS).encode("ascii")


class NonsenseReturned(Exception):
    """A handler returned what no response can be made of."""


# What is wrong where somebody has returned that.
_MEANT = {type(None): "; is a return missing?", tuple: "; a status goes into Response.json(value, status=...)"}


def to_response(result: Any, method: str, file: str) -> Response:
    """The response that a handler's return value means (SPEC 2). Raises NonsenseReturned."""
    if isinstance(result, Response):
        return result
    if isinstance(result, (dict, list)):
        return _to_json(result, method, file)
    if isinstance(result, (str, bytes, bytearray, memoryview)):
        return Response(result)
    kind = type(result)
    if kind is not type:
        if hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__struct_fields__"):
            return _to_json(result, method, file)
        if hasattr(kind, "model_dump_json"):
            return Response(result.model_dump_json().encode(), 200, {"content-type": "application/json"})
        if hasattr(kind, "__aiter__") or hasattr(kind, "__next__"):
            return Response(result)
    raise NonsenseReturned(
        f"{file}: {method} returned {kind.__name__}; a handler returns a Response, dict, list, dataclass, pydantic or "
        f"msgspec model, str, bytes or a generator{_MEANT.get(kind, '')}"
    )


def _to_json(result: Any, method: str, file: str) -> Response:
    try:
        return Response.json(result)
    except (json_text.NotJson, RecursionError, ValueError) as error:
        if (why := json_text.fault(error)) is None:
            raise
        raise NonsenseReturned(f"{file}: {method} returned {type(result).__name__}, in which {why}") from None
