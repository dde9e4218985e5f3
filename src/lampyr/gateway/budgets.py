"""Budgets: what a function, or all of them, may use in an hour, a day or a month."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from lampyr.core.budgets import window
from lampyr.ledger.counters import Counters
from lampyr.values import Budget, parse_budget

# What is said aloud when so much of a budget is used.
MARKS = (1.0, 0.8, 0.5)


class Allowance:
    """One budget and what is used of it. `route` is "" for one of the whole project."""

    def __init__(self, budget: Budget, route: str, counters: Counters, tell: Callable[[str], None]) -> None:
        self.budget = budget
        self.route = route
        self._tell = tell
        self._counter = counters.counter(route, budget.unit, budget.period)
        self._begin_s = self._end_s = 0

    def _now(self) -> float:
        now_s = time.time()
        if not self._begin_s <= now_s < self._end_s:
            self._begin_s, self._end_s = window(self.budget.period, now_s)
        return now_s

    def wait_s(self) -> float:
        """0 while something is left, else in how many seconds there will be again."""
        now_s = self._now()
        used, amount = self._counter.used(self._begin_s), self.budget.amount
        spent = used + 1 > amount if self.budget.unit == "invocations" else used >= amount
        return max(self._end_s - now_s, 1.0) if spent else 0.0

    def use(self, amount: float) -> None:
        """Some of it is used."""
        self._now()
        before = self._counter.used(self._begin_s)
        self._counter.add(self._begin_s, amount)
        for mark in MARKS:
            if before < mark * self.budget.amount <= before + amount:
                whose = f"the budget of {self.route or 'the project'}"
                self._tell(f"{whose}, {self.written()}, is used to {mark:.0%}")
                return

    def written(self) -> str:
        """As people write it."""
        return f"{self.budget.amount:g} {self.budget.unit}/{self.budget.period}"


class Allowances:
    """The budgets that hold for one function: its own and those of the project."""

    def __init__(self, each: Iterable[Allowance]) -> None:
        self._each = tuple(each)
        self._counted = [one for one in self._each if one.budget.unit == "invocations"]
        self._cpu = [one for one in self._each if one.budget.unit == "CPU seconds"]
        self._memory = [one for one in self._each if one.budget.unit == "GB-seconds"]

    def spent(self) -> tuple[Allowance, float] | None:
        """The budget that is spent, and for how many seconds yet; or None, and this invocation is counted."""
        found = max(((one.wait_s(), one) for one in self._each), key=lambda pair: pair[0])
        if found[0]:
            return found[1], found[0]
        for one in self._counted:
            one.use(1)
        return None

    def use(self, cpu_ns: int, gb_s: float) -> None:
        """An invocation has used this."""
        for one in self._cpu:
            one.use(cpu_ns / 1e9)
        for one in self._memory:
            one.use(gb_s)


def allowances(
    route: str, own: str | None, project: Iterable[str], counters: Counters, tell: Callable[[str], None]
) -> Allowances | None:
    """The budgets of a function; None where there are none."""
    written = [("", text) for text in project] + ([(route, own)] if own else [])
    found = [(whose, parse_budget(text)) for whose, text in written]
    each = [Allowance(budget, whose, counters, tell) for whose, budget in found if budget is not None]
    return Allowances(each) if each else None
