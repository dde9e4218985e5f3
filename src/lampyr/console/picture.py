"""What pages show of a server: what is deployed, what runs of it, and what the ledger says, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lampyr.console.facts import Facts
from lampyr.ledger import history
from lampyr.ledger.history import Figures, Window

# So many lamps are drawn; the rest is a number.
MAX_LAMPS = 24


@dataclass(slots=True)
class Function:
    """One function. `card`: what is deployed (control/card.py); `instances` as `lampyr ps` has them."""

    route: str
    card: dict[str, Any]
    snapshot: str = "absent"
    waiting: int = 0
    instances: list[dict[str, Any]] = field(default_factory=list)
    figures: Figures | None = None
    beats: list[tuple[int, int]] = field(default_factory=list)  # invocations and errors, over the window

    @property
    def in_flight(self) -> int:
        return sum(one["in_flight"] for one in self.instances)

    @property
    def memory_mb(self) -> float:
        return float(sum(one["memory_mb"] for one in self.instances))

    @property
    def state(self) -> str:
        """The lamp: failed, lit (it serves), idle, starting, ready (a snapshot) or nothing of it."""
        if self.card["problem"] or self.snapshot == "failed":
            return "failed"
        states = {one["state"] for one in self.instances}
        if self.in_flight:
            return "lit"
        for state in ("idle", "starting"):
            if state in states:
                return state
        return "ready" if self.snapshot == "ready" else ""

    @property
    def lamps(self) -> list[str]:
        """A lamp for each instance, those that serve first."""
        shown = {"busy": "lit", "idle": "idle", "starting": "starting"}
        found = ["lit" if one["in_flight"] else shown.get(one["state"], "") for one in self.instances]
        order = ("lit", "idle", "starting", "")
        return sorted(found, key=order.index)[:MAX_LAMPS]

    @property
    def unseen(self) -> int:
        return max(len(self.instances) - MAX_LAMPS, 0)


@dataclass(slots=True)
class Picture:
    """The whole server at one moment. `total` is None where the ledger has nothing yet."""

    card: dict[str, Any]
    functions: list[Function]
    total: Figures | None
    window: Window
    now_ms: int
    url: str

    def find(self, route: str) -> Function | None:
        return next((one for one in self.functions if one.route == route), None)

    @property
    def lit(self) -> int:
        return sum(one.state in ("lit", "idle", "starting") for one in self.functions)

    @property
    def instances(self) -> int:
        return sum(len(one.instances) for one in self.functions)

    @property
    def in_flight(self) -> int:
        return sum(one.in_flight for one in self.functions)

    @property
    def failed(self) -> int:
        """Invocations that went wrong in the window."""
        return int(self.total.sums["errors"]) if self.total else 0


async def take(facts: Facts, window: Window) -> Picture:
    """The server as it is now. Raises LampyrError where control does not answer."""
    now_ms = int(time.time() * 1000)
    card, running, read = await asyncio.gather(
        facts.control.ask("card"),
        facts.control.ask("ps"),
        asyncio.to_thread(_read, facts, window, now_ms),
    )
    by_function, total, beats = read
    functions = {one["function"]: Function(one["function"], one) for one in card["functions"]}
    _add_running(functions, running["functions"])
    for route, function in functions.items():
        function.figures = by_function.get(route)
        function.beats = beats.get(route, [])
    return Picture(card, list(functions.values()), total, window, now_ms, facts.url)


def _add_running(functions: dict[str, Function], rows: Iterable[dict[str, Any]]) -> None:
    """What an earlier deployment still has to finish counts as its function's too."""
    for row in rows:
        function = functions.get(row["function"])
        if function is not None:
            function.instances += row["instances"]
            function.waiting += row["waiting"]
            if function.snapshot != "ready":
                function.snapshot = "failed" if row["failed"] else row["snapshot"]


def _read(
    facts: Facts, window: Window, now_ms: int
) -> tuple[dict[str, Figures], Figures | None, dict[str, list[tuple[int, int]]]]:
    with history.reading(facts.ledger) as db:
        if db is None:
            return {}, None, {}
        by_function, total = history.figures(db, window, now_ms)
        return by_function, total, history.beats(db, window, now_ms)
