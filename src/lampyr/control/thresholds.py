"""Says that 50, 80 and 100 % of a budget are used: each once in a period, in the log and to a webhook.

Gateway and broker only count; what they count stands in a mapped file, which is looked at here. What was said stands
there as well, so that nothing is said again by the next control process.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lampyr.core import budgets
from lampyr.ledger.counters import Counter, Counters
from lampyr.runtime.channel import Message
from lampyr.values import Budget, parse_budget

# How long after it is reached a mark may be said.
LOOK_EVERY_S = 0.5
# From here on it is a warning: there is still something to do about it.
WARNED_FROM = 0.8


@dataclass(frozen=True, slots=True)
class Notice:
    """A mark that a budget has reached. `route` is "" for one of the whole project."""

    route: str
    budget: Budget
    mark: float
    used: float
    begin_s: int
    end_s: int

    def line(self) -> str:
        """For the log."""
        whose = self.route or "the project"
        return f"the budget of {whose}, {self.budget.written()}, is used to {self.mark:.0%}"

    def is_warning(self) -> bool:
        """Whether somebody should look at it."""
        return self.mark >= WARNED_FROM

    def event(self) -> dict[str, Any]:
        """For the webhook."""
        begin, end = (datetime.datetime.fromtimestamp(one, datetime.UTC) for one in (self.begin_s, self.end_s))
        return {
            "event": "budget",
            "function": self.route or None,
            "budget": self.budget.written(),
            "percent": round(self.mark * 100),
            "used": round(self.used, 6),
            "amount": self.budget.amount,
            "unit": self.budget.unit,
            "period_begins": begin.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "period_ends": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "text": f"lampyr: {self.line()}",
        }


class _Watched(NamedTuple):
    """A budget, what is used of it, what was used of it in the period before, and the last mark that was said."""

    route: str
    budget: Budget
    counter: Counter
    last: Counter
    told: Counter


class Thresholds:
    """Looks at the budgets of what is deployed."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._watched: list[_Watched] = []

    def deployed(self, message: Message) -> None:
        """There is a deployment (control/deployment.py)."""
        written = {("", text) for text in message["budgets"]}
        written |= {(one["route"], one["settings"]["budget"]) for one in message["functions"]}
        self._watched = list(self._watch(sorted((route, text) for route, text in written if text)))

    def _watch(self, written: Iterable[tuple[str, str]]) -> Iterable[_Watched]:
        for route, text in written:
            budget = parse_budget(text)
            if budget is not None:
                key = (route, budget.unit, budget.period)
                used, last = self._counters.counter(*key), self._counters.counter(*key, "last")
                yield _Watched(route, budget, used, last, self._counters.counter(route, budget.written(), "said"))

    @property
    def watches(self) -> bool:
        """Whether there is a budget at all."""
        return bool(self._watched)

    def look(self, now_s: float, say: Callable[[Notice], None]) -> None:
        """Say what was reached since the last look."""
        for one in self._watched:
            begin_s, end_s = budgets.window(one.budget.period, now_s)
            if one.told.begun_s() < begin_s:  # of the period before, what was reached after the last look at it
                before_s, _ = budgets.window(one.budget.period, begin_s - 1)
                for counter in (one.last, one.counter):
                    if counter.begun_s() == before_s:
                        _say(one, counter, before_s, begin_s, say)
            _say(one, one.counter, begin_s, end_s, say)


def _say(one: _Watched, counter: Counter, begin_s: int, end_s: int, say: Callable[[Notice], None]) -> None:
    used, said = counter.used(begin_s), one.told.used(begin_s)
    for mark in budgets.marks(said, used, one.budget.amount):
        one.told.add(begin_s, mark - one.told.used(begin_s))
        say(Notice(one.route, one.budget, mark, used, begin_s, end_s))
