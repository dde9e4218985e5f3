"""The query as the WHATWG URL standard reads it; the rows are from its section 5.1 and the URLSearchParams tests."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.runtime.query import Query, parse_urlencoded

PARSED = [
    (b"", []),
    (b"a=b", [("a", "b")]),
    (b"a=b&c=d&a=e", [("a", "b"), ("c", "d"), ("a", "e")]),
    (b"a", [("a", "")]),
    (b"a=", [("a", "")]),
    (b"=b", [("", "b")]),
    (b"=", [("", "")]),
    (b"&a&&b=1&", [("a", ""), ("b", "1")]),
    (b"a=b=c", [("a", "b=c")]),
    (b"a+b=c+d", [("a b", "c d")]),
    (b"a=%2B+%26%3D", [("a", "+ &=")]),
    (b"a;b=c;d", [("a;b", "c;d")]),
    (b"a=%", [("a", "%")]),
    (b"a=%2", [("a", "%2")]),
    (b"a=%zz%41", [("a", "%zzA")]),
    (b"%61=%62", [("a", "b")]),
    (b"a=%E2%82%AC", [("a", "€")]),
    (b"a=%FF%41", [("a", "\ufffdA")]),
    (b"a=%E2%82", [("a", "\ufffd")]),
    (b"a=\xe2\x82\xac", [("a", "€")]),
    (b"a=%00b", [("a", "\0b")]),
    (b"id=0&value=%EF%BB%BFtest", [("id", "0"), ("value", "\ufefftest")]),
    (b"a=1?b", [("a", "1?b")]),
]


@pytest.mark.parametrize(("raw", "pairs"), PARSED)
def test_pairs(raw: bytes, pairs: list[tuple[str, str]]) -> None:
    assert parse_urlencoded(raw) == pairs


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))))
def test_what_a_client_encodes_comes_back(pairs: list[tuple[str, str]]) -> None:
    assert parse_urlencoded(urlencode(pairs).encode()) == pairs


@given(st.binary())
def test_agrees_with_the_standard_library(raw: bytes) -> None:
    text = raw.decode("latin-1")
    expected = parse_qsl(text, keep_blank_values=True, encoding="latin-1")
    got = [(name.encode(), value.encode()) for name, value in parse_urlencoded(raw)]
    assert got == [(a.encode("latin-1").decode("utf-8", "replace").encode(),
                    b.encode("latin-1").decode("utf-8", "replace").encode()) for a, b in expected]  # fmt: skip


def test_multimap() -> None:
    query = Query([("a", "1"), ("b", "2"), ("a", "3")])
    assert query.get("a") == "1" and query["a"] == "1"
    assert query.getall("a") == ["1", "3"] and query.getall("x") == []
    assert query.get("x") is None and query.get("x", "none") == "none"
    assert "b" in query and "x" not in query and len(query) == 3 and list(query) == ["a", "b", "a"]
    assert query.items() == [("a", "1"), ("b", "2"), ("a", "3")] and query.values() == ["1", "2", "3"]
    assert dict(query) == {"a": "1", "b": "2"}
    with pytest.raises(KeyError):
        query["x"]
