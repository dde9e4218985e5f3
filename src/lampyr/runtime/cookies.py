"""Cookies: what a browser sent, and the Set-Cookie lines that answer it (RFC 6265bis)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from time import gmtime
from typing import Literal, TypeVar, overload
from urllib.parse import quote, unquote_to_bytes

from lampyr.runtime.headers import NAME

D = TypeVar("D")
SameSite = Literal["lax", "strict", "none", "Lax", "Strict", "None"]
Priority = Literal["low", "medium", "high", "Low", "Medium", "High"]

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*")  # no control characters and no semicolon
# What encodeURIComponent leaves as it is, so that JavaScript reads back what was written.
_UNRESERVED = "!~*'()"
_SAME_SITE = ("Lax", "Strict", "None")
_PRIORITY = ("Low", "Medium", "High")
# Written out because strftime follows the locale, and email.utils takes 25 ms to import.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def parse_cookies(lines: list[bytes]) -> dict[str, str]:
    """The cookies of the request's Cookie lines: values percent-decoded, the last of a name wins.

    What no browser sends is skipped: a pair without "=" or without a name, a bad escape, bytes that are not UTF-8.
    """
    cookies: dict[str, str] = {}
    for pair in b";".join(lines).split(b";"):
        name, equals, value = pair.strip(b" \t").partition(b"=")
        if not equals or not name or _BAD_ESCAPE.search(value):
            continue
        try:
            cookies[name.rstrip(b" \t").decode()] = unquote_to_bytes(value.lstrip(b" \t")).decode()
        except UnicodeDecodeError:
            continue
    return cookies


class RequestCookies:
    """The cookies that came with the request: `get`, `has`, `all`."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: D) -> str | D: ...
    def get(self, name: str, default: D | None = None) -> str | D | None:
        """The value of the cookie `name`, or `default`."""
        return self._all().get(name, default)

    def has(self, name: str) -> bool:
        """Whether there is a cookie of that name."""
        return name in self._all()

    def all(self) -> dict[str, str]:
        """Every cookie by name."""
        return dict(self._all())

    def _all(self) -> Mapping[str, str]:
        return self._values

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class ResponseCookies:
    """The cookies a response sets or deletes, one Set-Cookie line a name; the last call for a name counts."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: dict[str, bytes] = {}

    def set(
        self,
        name: str,
        value: str,
        *,
        path: str | None = "/",
        domain: str | None = None,
        max_age: int | timedelta | None = None,
        expires: datetime | float | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: SameSite | None = None,
        partitioned: bool = False,
        priority: Priority | None = None,
    ) -> None:
        """Set a cookie. The value is percent-encoded.

        `max_age` is in seconds, `expires` a datetime or seconds since 1970, `path` None leaves that to the browser.
        Raises ValueError for a name or attribute that cannot be sent.
        """
        if NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot be a cookie name: letters, digits and !#$%&'*+-.^_`|~ are allowed")
        parts = [f"{name}={quote(str(value), safe=_UNRESERVED)}"]
        if path is not None:
            parts.append("Path=" + _attribute("path", path))
        if domain is not None:
            parts.append("Domain=" + _attribute("domain", domain))
        if max_age is not None:
            parts.append(f"Max-Age={_seconds(max_age)}")
        if expires is not None:
            parts.append("Expires=" + _http_date(expires))
        if secure:
            parts.append("Secure")
        if httponly:
            parts.append("HttpOnly")
        if samesite is not None:
            parts.append("SameSite=" + _one_of("samesite", samesite, _SAME_SITE))
        if partitioned:
            parts.append("Partitioned")
        if priority is not None:
            parts.append("Priority=" + _one_of("priority", priority, _PRIORITY))
        self.lines[name] = "; ".join(parts).encode("ascii")

    def delete(self, name: str, *, path: str | None = "/", domain: str | None = None) -> None:
        """Tell the browser to forget a cookie; `path` and `domain` have to be those it was set with."""
        self.set(name, "", path=path, domain=domain, max_age=0, expires=0)


def _attribute(name: str, value: str) -> str:
    if _ATTRIBUTE.fullmatch(value) is None:
        raise ValueError(f"{value!r} cannot be the {name} of a cookie: printable ASCII without ';' is allowed")
    return value


def _seconds(value: int | timedelta) -> int:
    return int(value.total_seconds()) if isinstance(value, timedelta) else int(value)


def _http_date(when: datetime | float) -> str:
    """RFC 9110 5.6.7; a datetime without a zone is local time, as everywhere in Python."""
    at = gmtime(when.timestamp() if isinstance(when, datetime) else when)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year:04} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    word = str(value).capitalize()
    if word not in allowed:
        raise ValueError(f"{name}={value!r}: one of {', '.join(repr(one.lower()) for one in allowed)} is allowed")
    return word
