"""Allowances: never more than there is, whatever the clock does and however many budgets hold at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lampyr.gateway.budgets import Allowance, Allowances, allowances
from lampyr.ledger.counters import Counters
from lampyr.values import Budget

DAY_S = 86400
NOON_S = 20_000 * DAY_S + DAY_S // 2


def fresh() -> Counters:
    with tempfile.TemporaryDirectory() as folder:
        return Counters(Path(folder) / "budgets", print)


class Clock:
    """Says what it was set to."""

    def __init__(self) -> None:
        self.now_s = float(NOON_S)

    def __call__(self) -> float:
        return self.now_s


@settings(max_examples=200)
@given(
    st.integers(1, 20),
    st.sampled_from(["hour", "day", "month"]),
    st.lists(st.floats(-1, 2), min_size=30, max_size=60),
)
def test_a_clock_that_is_set_back_gives_nobody_more(amount: int, period: str, offsets: list[float]) -> None:
    """Offsets are in periods. Only a period that is later than all before has an allowance of its own."""
    clock, counters = Clock(), fresh()
    own = Allowance(Budget(amount, "invocations", period), "/a", counters, clock)
    latest, admitted, length_s = 0, 0, {"hour": 3600, "day": DAY_S, "month": 28 * DAY_S}[period]
    for offset in offsets:
        ahead = max(latest - length_s, 0) if latest else 0
        clock.now_s = max(NOON_S + offset * length_s, ahead)
        begin_s = own.begin_s()
        if begin_s > latest:
            latest, admitted = begin_s, 0
        if not own.wait_s():
            own.use(1)
            admitted += 1
        assert admitted <= amount


def test_a_clock_that_was_far_ahead_does_not_keep_a_budget_spent() -> None:
    clock, counters = Clock(), fresh()
    own = Allowance(Budget(3, "invocations", "day"), "/a", counters, clock)
    clock.now_s = NOON_S + 9000 * DAY_S
    own.use(3)
    clock.now_s = NOON_S
    assert 0 < own.wait_s() <= DAY_S
    own.use(0)
    clock.now_s = NOON_S + DAY_S
    assert not own.wait_s() and own.left() == 3


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["hour", "day", "month"])), min_size=1, max_size=5),
    st.integers(0, 100),
)
def test_the_least_of_all_budgets_holds_and_counts_no_refused_one(each: list[tuple[int, str]], asked: int) -> None:
    project = [f"{amount} invocations/{period}" for amount, period in each]
    counters = fresh()
    found = allowances("/a", "25 invocations/day", project, counters)
    assert found is not None
    admitted = sum(found.spent() is None for _ in range(asked))
    assert admitted == min(asked, 25, *(amount for amount, _ in each))
    for one in found.each:
        assert one.used() == admitted
    other = allowances("/b", None, project, counters)
    assert other is not None and (other.spent() is None) == (admitted < min(amount for amount, _ in each))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 10**10), st.floats(0, 100)), max_size=40), st.integers(1, 200))
def test_seconds_are_added_up_and_the_next_one_is_refused(uses: list[tuple[int, float]], amount: int) -> None:
    counters = fresh()
    units = ("CPU seconds", "GB-seconds")
    each = [Allowance(Budget(amount, unit, "month"), "/a", counters, Clock()) for unit in units]
    found, cpu_ns, gb_s = Allowances(each), 0, 0.0
    for cpu, memory in uses:
        assert (found.spent() is None) == (max(each[0].used(), each[1].used()) < amount)
        found.use(cpu, memory)
        cpu_ns, gb_s = cpu_ns + cpu, gb_s + memory
    assert abs(each[0].used() - cpu_ns / 1e9) < 1e-6 and abs(each[1].used() - gb_s) < 1e-6
