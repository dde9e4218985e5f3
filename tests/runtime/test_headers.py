"""Header fields: reading without regard to case, and refusing what could end a line."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.runtime.headers import Headers, ResponseHeaders, field_name, field_value


def test_read_only_view() -> None:
    headers = Headers([b"host", b"a.test", b"accept", b"x", b"x-a", b"\xe9", b"accept", b"y"])
    assert headers.get("Accept") == "x, y" and headers["ACCEPT"] == "x, y"
    assert headers.getall("accept") == ["x", "y"] and headers.getall("nope") == []
    assert headers.get("nope") is None and headers.get("nope", "-") == "-"
    assert headers.get("X-A") == "é"
    assert "HOST" in headers and "nope" not in headers and 5 not in headers and headers.has("Host")
    assert len(headers) == 4 and list(headers) == ["host", "accept", "x-a", "accept"]
    assert headers.items()[1] == ("accept", "x") and headers.values()[0] == "a.test"
    assert headers.get("\N{SNOWMAN}") is None
    with pytest.raises(KeyError):
        headers["nope"]
    for change in ("headers['a'] = 'b'", "del headers['host']"):
        with pytest.raises(TypeError):
            exec(change, {"headers": headers})


def test_response_headers() -> None:
    headers = ResponseHeaders([])
    headers["X-A"] = "1"
    headers.append("x-a", "2")
    headers.append("Set-Cookie", "a=1")
    headers.append("Set-Cookie", "b=2")
    assert headers.items() == [("x-a", "1"), ("x-a", "2"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
    headers["x-A"] = "3"
    assert headers.getall("x-a") == ["3"] and headers.getall("set-cookie") == ["a=1", "b=2"]
    del headers["X-a"]
    assert "x-a" not in headers
    with pytest.raises(KeyError):
        del headers["x-a"]
    headers.delete("x-a")
    headers.set("n", 5)
    assert headers.setdefault("n", "6") == "5" and headers.setdefault("m", "7") == "7"
    headers.update({"n": "8"})
    headers.update([("m", "9"), ("m", "10")])
    assert headers.getall("n") == ["8"] and headers.getall("m") == ["9", "10"]


BAD_NAMES = [
    "",
    " ",
    "a b",
    "a:",
    "a\r",
    "a\n",
    "a\0",
    "é",
    "a\x7f",
    "(a)",
    "a,b",
    "a/b",
    "a=b",
    '"a"',
    "[a]",
    "{a}",
    "@",
]
BAD_VALUES = ["a\r\nset-cookie: b=1", "a\n", "\rb", "a\0b", "\x01", "a\x7f", "€", "a\u2028b", "\x1b[0m", "a\x0bb"]
GOOD_VALUES = [("a", b"a"), ("", b""), (" a\t", b"a"), ("a\tb", b"a\tb"), ("é", b"\xe9"), ("~!", b"~!"), (5, b"5")]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="header name"):
        ResponseHeaders([]).append(name, "x")


@pytest.mark.parametrize("value", BAD_VALUES)
def test_bad_values(value: str) -> None:
    headers = ResponseHeaders([b"x", b"old"])
    with pytest.raises(ValueError, match="header value"):
        headers["x"] = value
    assert headers.items() == [("x", "old")]


@pytest.mark.parametrize(("value", "sent"), GOOD_VALUES)
def test_good_values(value: str | int, sent: bytes) -> None:
    assert field_value(value) == sent


@pytest.mark.parametrize("value", [None, True, 1.5, b"bytes", ["a"]])
def test_values_of_other_types(value: object) -> None:
    with pytest.raises(TypeError):
        field_value(value)  # type: ignore[arg-type]  # so that it is refused


@given(st.text())
def test_no_accepted_value_holds_a_line_end(value: str) -> None:
    try:
        sent = field_value(value)
    except ValueError:
        return
    assert not set(sent) & {0, 10, 13} and sent == value.strip(" \t").encode("latin-1")


@given(st.text(string.printable))
def test_every_accepted_name_is_a_token(name: str) -> None:
    try:
        sent = field_name(name)
    except ValueError:
        return
    assert set(sent.decode()) <= set(string.ascii_lowercase + string.digits + "!#$%&'*+-.^_`|~") and sent
