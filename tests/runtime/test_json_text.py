"""JSON in and out, exactly (RFC 8259)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.errors import BadRequest
from lampyr.runtime.json_text import decode, encode

READ: list[tuple[bytes, Any]] = [
    (b"1", 1),
    (b' \r\n\t{"a" : [ ] }\n', {"a": []}),
    (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'"\xff"', "\ufffd"),
    (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
    (b'"\\ud83d\\ude00"', "😀"),
    (b"1e2", 100.0),
    (b"-0", 0),
    (b"12345678901234567890123", 12345678901234567890123),
    (b'{"__proto__":1}', {"__proto__": 1}),
    (b"null", None),
]

NOT_JSON = [
    b"", b" ", b"NaN", b"Infinity", b"-Infinity", b'{"a":NaN}', b"[1,]", b"{a:1}", b"'a'", b"1 2", b'{"a":1}x', b"01",
    b"+1",
    b".5", b"1.", b'"\n"', b'"\\x41"', b"tru", b'["a"', b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf1", b"// a\n1",
    b"9" * 5000,
    b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize(("data", "value"), READ)
def test_read(data: bytes, value: Any) -> None:
    assert decode(data) == value


@pytest.mark.parametrize("data", NOT_JSON, ids=lambda data: repr(data[:20]))
def test_not_json(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(data)


@dataclass
class Point:
    x: int
    at: datetime


class Model(pydantic.BaseModel):
    name: str
    when: datetime


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
WRITTEN: list[tuple[Any, str]] = [
    ({"a": [1, 2.5, True, None, "é"]}, '{"a":[1,2.5,true,null,"é"]}'),
    ("\u2028</script>", '"\u2028</script>"'),
    ("\ud800", '"\\ud800"'),
    ({1: "int", None: "none"}, '{"1":"int","null":"none"}'),
    ((1, 2), "[1,2]"),
    (Point(1, NOON), '{"x":1,"at":"2026-01-02T12:00:00+00:00"}'),
    ([Model(name="n", when=NOON)], '[{"name":"n","when":"2026-01-02T12:00:00Z"}]'),
    ({"d": date(2026, 1, 2), "u": UUID(int=1)}, '{"d":"2026-01-02","u":"00000000-0000-0000-0000-000000000001"}'),
]


@pytest.mark.parametrize(("value", "text"), WRITTEN)
def test_written(value: Any, text: str) -> None:
    assert encode(value) == text.encode()


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_not_a_number(value: Any) -> None:
    with pytest.raises(ValueError):
        encode(value)


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", 1j, {(1, 2): 3}])
def test_not_for_json(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(value)


def test_a_circle() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises((RecursionError, ValueError)):
        encode(circle)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_is_written_reads_back(value: Any) -> None:
    data = encode(value)
    assert decode(data) == value == json.loads(data)
