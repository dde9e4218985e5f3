"""Cookies as browsers send them, and Set-Cookie as RFC 6265bis wants it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.runtime.cookies import RequestCookies, ResponseCookies, parse_cookies

SENT = [
    ([], {}),
    ([b""], {}),
    ([b"a=1"], {"a": "1"}),
    ([b"a=1; b=2"], {"a": "1", "b": "2"}),
    ([b"a=1;b=2;"], {"a": "1", "b": "2"}),
    ([b"a=1", b"b=2"], {"a": "1", "b": "2"}),
    ([b"a=1; a=2"], {"a": "2"}),
    ([b"a=b=c"], {"a": "b=c"}),
    ([b"a="], {"a": ""}),
    ([b"a=%C3%A9%20%3B"], {"a": "é ;"}),
    ([b"a=x+y"], {"a": "x+y"}),
    ([b'a="q"'], {"a": '"q"'}),
    ([b"a=\xc3\xa9"], {"a": "é"}),
    ([b"%61=1"], {"%61": "1"}),
    ([b"broken; a=1"], {"a": "1"}),
    ([b"=x; a=1"], {"a": "1"}),
    ([b"a=100%; b=2"], {"b": "2"}),
    ([b"a=%zz; b=2"], {"b": "2"}),
    ([b"a=%FF; b=2"], {"b": "2"}),
    ([b"a=1; a=%FF"], {"a": "1"}),
    ([b" a = 1 ;\tb\t=\t2\t"], {"a": "1", "b": "2"}),
    ([b";;a=1;;"], {"a": "1"}),
]


@pytest.mark.parametrize(("lines", "cookies"), SENT)
def test_sent(lines: list[bytes], cookies: dict[str, str]) -> None:
    assert parse_cookies(lines) == cookies


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True), st.text(st.characters(codec="utf-8"))))
def test_what_javascript_encodes_comes_back(cookies: dict[str, str]) -> None:
    line = "; ".join(f"{name}={quote(value, safe='!~*()')}" for name, value in cookies.items())
    assert parse_cookies([line.encode()]) == cookies


def test_reading() -> None:
    cookies = RequestCookies({"a": "1"})
    assert cookies.get("a") == "1" and cookies.get("b") is None and cookies.get("b", "-") == "-"
    assert cookies.has("a") and not cookies.has("b") and "a" in cookies and cookies["a"] == "1"
    assert cookies.all() == {"a": "1"} and len(cookies) == 1 and list(cookies) == ["a"]


MOMENT = datetime(2026, 2, 9, 8, 7, 6, tzinfo=UTC)
WRITTEN: list[tuple[dict[str, Any], str]] = [
    ({}, "a=1; Path=/"),
    ({"path": None}, "a=1"),
    ({"path": "/x", "domain": "a.test"}, "a=1; Path=/x; Domain=a.test"),
    ({"max_age": 60}, "a=1; Path=/; Max-Age=60"),
    ({"max_age": timedelta(days=1)}, "a=1; Path=/; Max-Age=86400"),
    ({"expires": 0}, "a=1; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
    ({"expires": MOMENT}, "a=1; Path=/; Expires=Mon, 09 Feb 2026 08:07:06 GMT"),
    ({"secure": True, "httponly": True}, "a=1; Path=/; Secure; HttpOnly"),
    ({"samesite": "lax"}, "a=1; Path=/; SameSite=Lax"),
    ({"samesite": "None", "secure": True, "partitioned": True}, "a=1; Path=/; Secure; SameSite=None; Partitioned"),
    ({"priority": "high"}, "a=1; Path=/; Priority=High"),
]


@pytest.mark.parametrize(("attributes", "line"), WRITTEN)
def test_written(attributes: dict[str, Any], line: str) -> None:
    cookies = ResponseCookies()
    cookies.set("a", "1", **attributes)
    assert cookies.lines == {"a": line.encode()}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("a b", {}),
    ("a;", {}),
    ("a=b", {}),
    ("a\r\n", {}),
    ("é", {}),
    ("a", {"path": "/;x"}),
    ("a", {"path": "/\r\nx"}),
    ("a", {"domain": "a.test; Secure"}),
    ("a", {"samesite": "sometimes"}),
    ("a", {"priority": "urgent"}),
]


@pytest.mark.parametrize(("name", "attributes"), REFUSED)
def test_refused(name: str, attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ResponseCookies().set(name, "1", **attributes)


def test_deleting_and_setting_again() -> None:
    cookies = ResponseCookies()
    cookies.delete("a")
    assert cookies.lines["a"] == b"a=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    cookies.delete("a", path="/x", domain="a.test")
    assert cookies.lines["a"].startswith(b"a=; Path=/x; Domain=a.test;")
    cookies.set("a", "2")
    assert cookies.lines["a"] == b"a=2; Path=/"


@given(st.text(st.characters(codec="utf-8")))
def test_every_value_is_sent_safely_and_reads_back(value: str) -> None:
    cookies = ResponseCookies()
    cookies.set("a", value)
    pair = cookies.lines["a"].split(b"; ")[0]
    assert not set(pair) & set(b' ";,\\\r\n\0') and parse_cookies([pair]) == {"a": value}
