"""Budgets of tokens and dollars: a call reserves what it may use before it is made, and settles for what it has used.

Both numbers are in the mapped file of `ledger/counters.py`, so no `kill -9` sets them back. What was reserved when a
broker died counts as used from then on: its provider may have been asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from math import ceil
from typing import NamedTuple

from lampyr.broker.desk import Refused
from lampyr.gateway.budgets import Allowance
from lampyr.ledger.counters import Counter, Counters
from lampyr.values import parse_budget

UNITS = ("tokens", "USD")
# How long a call waits for others to settle where what they have reserved is all that is left.
WAIT_S = 10.0
# Sums of dollars are not exact; a millionth of a cent is nobody's.
NOTHING = 1e-9


class Amount(NamedTuple):
    """Tokens and dollars."""

    tokens: float
    usd: float

    def of(self, unit: str) -> float:
        """The one that a budget of `unit` counts."""
        return self.tokens if unit == "tokens" else self.usd


class Purse:
    """One budget. What is used of it the gateway reads as well: it lets nobody in who would find it empty."""

    def __init__(self, allowance: Allowance, reserved: Counter) -> None:
        self.allowance = allowance
        self._reserved = reserved
        self._settled = asyncio.Event()
        self.open = 0  # calls that have reserved something and not settled

    def close(self) -> None:
        """Count what an earlier broker had reserved as used."""
        begin_s = self.allowance.begin_s()
        if (left := self._reserved.used(begin_s)) > 0:
            self.allowance.use(left)
            self._reserved.add(begin_s, -left)

    def left(self) -> float:
        """What nobody has used or reserved."""
        return self.allowance.left() - self._reserved.used(self.allowance.begin_s())

    def has(self, amount: float) -> bool:
        """Whether a call may be made that uses as much; or is the only one, and something is left."""
        left = self.left()
        return left > NOTHING and (amount <= left + NOTHING or not self.open)

    def reserve(self, amount: float) -> int:
        """Keep it for a call; the period it is taken from."""
        begin_s = self.allowance.begin_s()
        self._reserved.add(begin_s, amount)
        self.open += 1
        return begin_s

    def settle(self, begin_s: int, reserved: float, used: float) -> None:
        """The call has used so much of it. In this order: who dies in between has counted too much."""
        if used:
            self.allowance.use(used)
        if begin_s == self.allowance.begin_s():
            self._reserved.add(begin_s, -reserved)
        self.open -= 1
        self._settled.set()
        self._settled = asyncio.Event()

    async def news(self) -> None:
        """Wait until a call settles."""
        await self._settled.wait()


class Reservation:
    """What a call keeps of each budget until it is settled."""

    def __init__(self, kept: list[tuple[Purse, int, float]]) -> None:
        self._kept = kept

    def settle(self, used: Amount) -> None:
        """Give back what was not used; once."""
        for purse, begin_s, reserved in self._kept:
            purse.settle(begin_s, reserved, used.of(purse.allowance.budget.unit))
        self._kept = []


class Purses:
    """The budgets of all functions and of the project, as control has said them last."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._known: dict[tuple[str, str], Purse] = {}
        self._closed: set[tuple[str, str, str]] = set()  # whose earlier reservations have been counted
        self._of: dict[str, list[Purse]] = {}

    def told(self, project: Iterable[str], own: Mapping[str, str | None]) -> None:
        """Those of the project, and of functions by route."""
        common = [purse for text in project if (purse := self._purse("", text))]
        self._of = {}
        for route, text in own.items():
            purse = self._purse(route, text) if text else None
            self._of[route] = [*common, purse] if purse else common

    def _purse(self, route: str, text: str) -> Purse | None:
        if (route, text) not in self._known:
            budget = parse_budget(text)
            if budget is None or budget.unit not in UNITS:
                return None
            allowance = Allowance(budget, route, self._counters)
            reserved = self._counters.counter(route, f"{budget.unit} reserved", budget.period)
            purse = self._known[route, text] = Purse(allowance, reserved)
            if (key := (route, budget.unit, budget.period)) not in self._closed:
                self._closed.add(key)
                purse.close()
        return self._known[route, text]

    async def reserve(self, route: str, most: Amount) -> Reservation:
        """Keep `most` of each budget. A call that may go over what is left is made when no other is under way.

        So each is used up, and one call at most goes over. Raises Refused where one is spent.
        """
        purses = self._of.get(route, [])
        deadline_s = time.monotonic() + WAIT_S
        while short := next((one for one in purses if not one.has(most.of(one.allowance.budget.unit))), None):
            try:
                if short.allowance.left() <= NOTHING or not short.open:
                    raise TimeoutError
                async with asyncio.timeout(deadline_s - time.monotonic()):
                    await short.news()
            except TimeoutError:
                raise _spent(short) from None
        kept = []
        for one in purses:
            amount = min(most.of(one.allowance.budget.unit), one.left())
            kept.append((one, one.reserve(amount), amount))
        return Reservation(kept)


def _spent(purse: Purse) -> Refused:
    allowance = purse.allowance
    whose = "this function" if allowance.route else "all functions together"
    spent_s = allowance.wait_s()
    how = "spent" if spent_s else "kept for calls that are under way"
    message = f"The budget of {whose}, {allowance.budget.written()}, is {how}."
    retry_s = spent_s or 1.0
    headers = ((b"retry-after", b"%d" % ceil(retry_s)), (b"x-lampyr-error", b"BUDGET_EXCEEDED"))
    return Refused(429, "rate_limit_error", message, code="BUDGET_EXCEEDED", headers=headers)
