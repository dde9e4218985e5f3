"""What calls cost: kept of the budgets before a call is made, counted and written into the ledger when it is over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lampyr.broker.budgets import Amount, Purses, Reservation
from lampyr.broker.desk import Caller, Provider
from lampyr.broker.estimate import Estimate
from lampyr.broker.prices import Prices
from lampyr.broker.usage import Tokens
from lampyr.ledger import records
from lampyr.ledger.counters import Counters
from lampyr.ledger.journal import Journal

SEGMENT_BYTES = 1024 * 1024
# Names of models are a function's to choose; so many without a price are told of.
MOST_WARNINGS = 100


class Bills:
    """The books of one state directory, whose one broker has this. `tell` says something in the log."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._journal = Journal(folder / "calls", tell, SEGMENT_BYTES)
        self._purses = Purses(Counters(folder / "budgets", tell))
        self._prices = Prices({})
        self._tell = tell
        self._warned: set[tuple[str, str]] = set()

    def told(self, message: Mapping[str, Any]) -> None:
        """Budgets and prices."""
        self._prices = Prices(message["prices"])
        self._purses.told(message["budgets"], dict(message["budgets_of"]))

    async def open(self, caller: Caller, asked: list[tuple[Provider, str]], estimate: Estimate) -> Bill:
        """A call of `caller` that may be made to any of these providers and models. Raises Refused."""
        tokens = Tokens(estimate.most_prompt, estimate.most_answer)
        usd = max(self.usd(provider, model, tokens) for provider, model in asked)
        kept = await self._purses.reserve(caller.route, Amount(estimate.most_prompt + estimate.most_answer, usd))
        return Bill(self, caller.route, kept, tokens)

    def free(self, caller: Caller) -> Bill:
        """A call of `caller` that costs nothing, whatever is left of its budgets."""
        return Bill(self, caller.route, Reservation([]), Tokens(0, 0))

    def usd(self, provider: Provider, model: str, tokens: Tokens) -> float:
        price = self._prices.of(provider, model)
        return price.usd(tokens) if price else 0.0

    def charge(self, provider: Provider, model: str, tokens: Tokens) -> float:
        """What a call has cost; 0 where there is no price, which is said once."""
        price, key = self._prices.of(provider, model), (provider.name, model)
        new = key not in self._warned and len(self._warned) < MOST_WARNINGS
        if price is None and model and new and tokens.read + tokens.written:
            self._warned.add(key)
            shown = json.dumps(model)
            self._tell(
                f"warning: no price is known of {shown} at {provider.name}; its calls count as 0 USD\n"
                f"hint: add [prices.{shown}] with input and output to lampyr.toml"
            )
        return price.usd(tokens) if price else 0.0

    def begin(self, row: records.Spent) -> None:
        """Into the ledger: what a call may have cost, should this process end before it."""
        self._journal.write(records.asked(records.Asked(row)))

    def write(self, row: records.Spent) -> None:
        """Into the ledger: what a call has cost."""
        self._journal.write(records.spent(row))


class Bill:
    """One call, from its reservation until it is closed. `most` are the tokens that it may use."""

    def __init__(self, bills: Bills, route: str, kept: Reservation, most: Tokens) -> None:
        self._bills = bills
        self._route = route
        self._kept = kept
        self._most = most

    def ask(self, provider: Provider, model: str, id: str, invocation: str) -> None:
        """This provider is about to be asked, perhaps after another that did not answer."""
        usd = self._bills.usd(provider, model, self._most)
        used = (self._most.read, self._most.written, usd, True)
        self._bills.begin(records.Spent(id, invocation, self._route, provider.name, model if usd else "", *used))

    def close(
        self,
        provider: Provider,
        model: str,
        tokens: Tokens,
        id: str,
        invocation: str,
        took_ms: float,
        *,
        answered: bool,
    ) -> float:
        """The call is over and has used this; returns its cost in dollars.

        `answered`: else what a function has written there is a model only if somebody has named a price for it.
        """
        usd = self._bills.charge(provider, model, tokens)
        model = model if answered or usd else ""
        self._kept.settle(Amount(tokens.read + tokens.written, usd))
        row = (id, invocation, self._route, provider.name, model, tokens.read, tokens.written, usd, tokens.guessed)
        self._bills.write(records.Spent(*row, took_ms))
        return usd

    def void(self) -> None:
        """No provider has been asked."""
        self._kept.settle(Amount(0, 0.0))
