"""How deep functions have called one another, as connections and requests say it."""

from __future__ import annotations

import pytest

from lampyr.core.depth import MAX_DEPTH, mark, marked, told


@pytest.mark.parametrize("depth", range(MAX_DEPTH + 1))
def test_a_mark_says_its_depth_in_six_bits(depth: int) -> None:
    assert marked(mark(depth)) == depth
    assert mark(depth) < 64 << 2


@pytest.mark.parametrize("service", [0, 1, 3, 5, 0xB8, 255])
def test_what_others_set_is_no_mark(service: int) -> None:
    assert marked(service) is None


def test_who_is_deeper_than_all_is_as_deep_as_a_mark_can_say() -> None:
    assert marked(mark(500)) == MAX_DEPTH


@pytest.mark.parametrize(
    ("value", "depth"), [("0", 0), ("16", 16), ("9999", 9999), ("", 0), ("-1", 0), ("²", 0), ("1" * 5000, 0), ("x", 0)]
)
def test_a_header_says_a_depth_or_nothing(value: str, depth: int) -> None:
    assert told(value) == depth
