"""A moment as people write it: a time ago, or a date."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.core.moments import moment

NOW_S = 1_795_000_000.0


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("0s", 0), ("90s", 90), ("10m", 600), ("24h", 86400), ("7d", 604_800), ("2w", 1_209_600), ("999999999w", NOW_S)],
)
def test_a_time_ago(text: str, ago_s: float) -> None:
    assert moment(text, NOW_S) == NOW_S - ago_s


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("2026-11-26", 1_795_651_200),
        ("2026-11-26T13:00", 1_795_698_000),
        ("2026-11-26 13:00:05", 1_795_698_005),
        ("2026-11-26T13:00Z", 1_795_698_000),
        ("2026-11-26T13:00+05:30", 1_795_678_200),
        ("1913-01-01", 0),
    ],
)
def test_a_date_is_utc_unless_it_says_otherwise(text: str, at_s: float) -> None:
    assert moment(text, NOW_S) == at_s


@pytest.mark.parametrize(
    "text", ["", "yesterday", " 24h", "24H", "-1h", "1.5h", "2026-13-45", "9" * 400 + "d", "24h\n"]
)
def test_anything_else_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment(text, NOW_S)


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d[+-]\d\d:\d\d", fullmatch=True))
def test_whatever_it_is_it_is_a_moment_or_told(text: str) -> None:
    try:
        assert 0 <= moment(text, NOW_S) < 253_402_300_800
    except ValueError:
        pass
