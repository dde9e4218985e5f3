"""Spreads: any percentile of any times within 4.5 %."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.core.spread import LEAST_MS, PER_OCTAVE, bucket, end_ms, middle_ms, percentile

WIDTH = 2 ** (1 / PER_OCTAVE)


@given(st.lists(st.floats(0.02, 1e6), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_that_of_the_times(times_ms: list[float], part: float) -> None:
    exact = sorted(times_ms)[max(ceil(len(times_ms) * part - 1e-9) - 1, 0)]
    found = percentile(Counter(map(bucket, times_ms)), part)
    assert found == pytest.approx(exact, rel=0.0455)


@given(st.floats(0, 1e7))
def test_a_time_is_in_its_bucket(ms: float) -> None:
    number = bucket(ms)
    assert end_ms(number - 1) * (1 - 1e-9) <= ms <= end_ms(number) * (1 + 1e-9) or (number == 0 and ms <= LEAST_MS)
    if ms > LEAST_MS:
        assert middle_ms(number) == pytest.approx(ms, rel=WIDTH**0.5 - 1 + 1e-6)


def test_nothing_has_no_percentile() -> None:
    assert percentile({}, 0.5) is None
