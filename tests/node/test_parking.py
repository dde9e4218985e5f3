"""When a start is expected: by the pauses between the latest ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.node.parking import LEAST_S, MOST_S, expected_until_s


@pytest.mark.parametrize("starts_s", [(), (5.0,), (5.0, 6.0)])
def test_of_few_starts_nobody_knows(starts_s: tuple[float, ...]) -> None:
    assert expected_until_s(starts_s) == 0.0


@pytest.mark.parametrize(
    ("starts_s", "until_s"),
    [
        ((0.0, 10.0, 20.0), 40.0),
        ((0.0, 10.0, 12.0), 32.0),
        ((0.0, 2.0, 12.0), 32.0),
        ((0.0, 0.3, 0.6), 0.6 + LEAST_S),
        ((0.0, 3600.0, 7200.0), 7200.0 + MOST_S),
    ],
)
def test_it_is_expected_for_twice_the_longest_pause(starts_s: tuple[float, ...], until_s: float) -> None:
    assert expected_until_s(starts_s) == pytest.approx(until_s)


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=3).map(sorted))
def test_it_is_never_expected_for_longer_than_that(starts_s: list[float]) -> None:
    assert LEAST_S - 1e-6 <= expected_until_s(starts_s) - starts_s[-1] <= MOST_S + 1e-6
