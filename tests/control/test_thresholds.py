"""Each mark of a budget is said once in its period, whenever it is reached and whoever dies meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from lampyr.control.thresholds import Thresholds
from lampyr.gateway.budgets import Allowance
from lampyr.ledger.counters import Counters
from lampyr.values import parse_budget

HOUR_S = 3600
BEGIN_S = 500_000 * HOUR_S
TEXT = "10 invocations/hour"


class Place:
    """A budget of a function, whose clock is in the test's hands."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "budgets"
        self.now_s = BEGIN_S + 60.0
        budget = parse_budget(TEXT)
        assert budget is not None
        self.allowance = Allowance(budget, "/a", Counters(self._file, print), lambda: self.now_s)
        self.restart()

    def restart(self) -> None:
        """A new control process."""
        self._thresholds = Thresholds(Counters(self._file, print))
        self._thresholds.deployed({"budgets": [], "functions": [{"route": "/a", "settings": {"budget": TEXT}}]})

    def said(self) -> list[tuple[int, int]]:
        """What is said now: percent, and which hour it is about."""
        found: list[tuple[int, int]] = []
        self._thresholds.look(
            self.now_s, lambda notice: found.append((round(notice.mark * 100), (notice.begin_s - BEGIN_S) // HOUR_S))
        )
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_each_mark_is_said_once(place: Place) -> None:
    for number in range(1, 11):
        place.allowance.use(1)
        assert place.said() == {5: [(50, 0)], 8: [(80, 0)], 10: [(100, 0)]}.get(number, [])
        place.restart()
        assert place.said() == []


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("dies", [False, True])
def test_a_mark_that_is_reached_at_the_last_moment_is_said_of_its_own_period(
    place: Place, goes_on: bool, dies: bool
) -> None:
    place.allowance.use(6)
    assert place.said() == [(50, 0)]
    place.now_s = BEGIN_S + HOUR_S - 0.01
    place.allowance.use(3)
    place.now_s = BEGIN_S + HOUR_S + 0.2
    if goes_on:
        place.allowance.use(5)
    if dies:
        place.restart()
    assert place.said() == [(80, 0), *([(50, 1)] if goes_on else [])]
    assert place.said() == []
    place.allowance.use(9)
    assert place.said() == [*([] if goes_on else [(50, 1)]), (80, 1), *([(100, 1)] if goes_on else [])]
    place.now_s += HOUR_S
    assert place.said() == []


def test_what_is_long_over_is_not_said(place: Place) -> None:
    place.allowance.use(9)
    place.now_s += 2 * HOUR_S
    assert place.said() == []
    place.allowance.use(1)
    place.now_s += 0.5
    assert place.said() == []
