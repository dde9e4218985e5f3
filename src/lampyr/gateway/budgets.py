"""Budgets: what a function, or all of them, may use in an hour, a day or a month."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from lampyr.core import budgets
from lampyr.ledger.counters import Counters
from lampyr.values import Budget, parse_budget


class Allowance:
    """One budget and what is used of it. `route` is "" for one of the whole project."""

    def __init__(
        self, budget: Budget, route: str, counters: Counters, clock_s: Callable[[], float] = time.time
    ) -> None:
        self.budget = budget
        self.route = route
        self._clock_s = clock_s
        self._counter = counters.counter(route, budget.unit, budget.period)
        self._last = counters.counter(route, budget.unit, budget.period, "last")
        self._begin_s = self._end_s = 0

    def _now(self) -> float:
        now_s = self._clock_s()
        if not self._begin_s <= now_s < self._end_s:
            self._begin_s, self._end_s = budgets.window(self.budget.period, now_s)
            if self._counter.begun_s() == self._end_s:
                # The clock was set back over midnight, and what came after it the first time counts on: else each
                # step back and forth would be a new allowance.
                self._begin_s, self._end_s = budgets.window(self.budget.period, self._end_s)
        return now_s

    def begin_s(self) -> int:
        """When the period began that is now."""
        self._now()
        return self._begin_s

    def used(self) -> float:
        """What is used of it in this period."""
        self._now()
        return self._counter.used(self._begin_s)

    def left(self) -> float:
        """What is not used of it."""
        return self.budget.amount - self.used()

    def wait_s(self) -> float:
        """0 while something is left, else in how many seconds there will be again."""
        now_s = self._now()
        spent = budgets.spent(self.budget.unit, self._counter.used(self._begin_s), self.budget.amount)
        return max(self._end_s - now_s, 1.0) if spent else 0.0

    def use(self, amount: float) -> None:
        """Some of it is used."""
        self._now()
        begun_s = self._counter.begun_s()
        if begun_s < self._begin_s:
            # What the period before came to stays for whoever has yet to say it (control/thresholds.py).
            self._last.add(begun_s, self._counter.used(begun_s) - self._last.used(begun_s))
        self._counter.add(self._begin_s, amount)


class Allowances:
    """The budgets that hold for one function: its own and those of the project."""

    def __init__(self, each: Iterable[Allowance]) -> None:
        self.each = tuple(each)
        self._counted = [one for one in self.each if one.budget.unit == "invocations"]
        self._cpu = [one for one in self.each if one.budget.unit == "CPU seconds"]
        self._memory = [one for one in self.each if one.budget.unit == "GB-seconds"]

    def spent(self) -> tuple[Allowance, float] | None:
        """The budget that is spent, and for how many seconds yet; or None, and this invocation is counted."""
        longest_s, found = 0.0, None
        for one in self.each:
            wait_s = one.wait_s()
            if wait_s > longest_s:
                longest_s, found = wait_s, one
        if found is not None:
            return found, longest_s
        for one in self._counted:
            one.use(1)
        return None

    def use(self, cpu_ns: int, gb_s: float) -> None:
        """An invocation has used this."""
        for one in self._cpu:
            one.use(cpu_ns / 1e9)
        for one in self._memory:
            one.use(gb_s)


def allowances(route: str, own: str | None, project: Iterable[str], counters: Counters) -> Allowances | None:
    """The budgets of a function; None where there are none. Of two for the same the smaller one holds."""
    found: dict[tuple[str, str, str], Budget] = {}
    for whose, text in [*(("", text) for text in project), *([(route, own)] if own else [])]:
        budget = parse_budget(text)
        if budget is not None:
            key = (whose, budget.unit, budget.period)
            found[key] = min(found.get(key, budget), budget)
    each = [Allowance(budget, whose, counters) for (whose, _, _), budget in found.items()]
    return Allowances(each) if each else None
