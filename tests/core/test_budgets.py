"""The periods of budgets: hours, days and months of UTC, each beginning where the one before ends."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.core.budgets import MARKS, marks, spent, window


@given(st.sampled_from(["hour", "day", "month"]), st.floats(0, 4e9))
def test_every_moment_is_in_one_period_and_periods_follow_one_another(period: str, now_s: float) -> None:
    begin_s, end_s = window(period, now_s)
    assert begin_s <= now_s < end_s
    assert window(period, begin_s) == (begin_s, end_s) == window(period, end_s - 1)
    assert window(period, end_s)[0] == end_s


@pytest.mark.parametrize(
    ("period", "begin", "end"),
    [
        ("hour", "2024-02-29T23:00", "2024-03-01T00:00"),
        ("day", "2024-02-29T00:00", "2024-03-01T00:00"),
        ("month", "2024-02-01T00:00", "2024-03-01T00:00"),
    ],
)
def test_a_leap_day(period: str, begin: str, end: str) -> None:
    now_s = datetime.datetime(2024, 2, 29, 23, 59, 59, tzinfo=datetime.UTC).timestamp()
    found = [datetime.datetime.fromtimestamp(one, datetime.UTC).isoformat()[:16] for one in window(period, now_s)]
    assert found == [begin, end]


@given(st.floats(0.001, 1e9), st.lists(st.floats(0, 1e9), max_size=30))
def test_each_mark_is_said_once_and_when_it_is_reached(amount: float, uses: list[float]) -> None:
    used, said, heard = 0.0, 0.0, []
    for more in uses:
        used += more
        for mark in marks(said, used, amount):
            heard.append(mark)
            said = mark
    assert heard == [mark for mark in MARKS if used >= mark * amount]


@given(st.integers(1, 100_000), st.integers(0, 200_000))
def test_of_invocations_as_many_as_the_budget_has_and_no_part_of_one(amount: int, used: int) -> None:
    assert spent("invocations", used, amount) == (used >= amount) == spent("tokens", used, amount)
    assert spent("invocations", used, amount + 0.5) == (used >= amount)
