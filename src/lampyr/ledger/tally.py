"""What records come to: rows that are complete, rows that are open, and sums by hour (no I/O)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lampyr.ledger.records import (
    ERRORS,
    REFUSED,
    Amended,
    Closed,
    Known,
    Opened,
    Origin,
    Record,
    Scaled,
    Spent,
    Started,
    Streamed,
    Traced,
)

HOUR_MS = 3_600_000
# What is added up, in the order of the columns of `hours` and `days` in the database. `calls` are those to providers.
SUMS = (
    *("invocations", "errors", "refused", "cold_starts", "billed_ms", "cpu_ms", "gb_s", "bytes_in", "bytes_out"),
    *("tokens_in", "tokens_out", "cost_usd", "calls"),
)
# Hour, origin, outcome, provider and model; "" is no provider.
Key = tuple[int, int, str, str, str]


def started_ms(id: str) -> int:
    """When an invocation arrived, which its id says (gateway/ids.py)."""
    return int(id[:11], 16)


def _nobody(id: str) -> Key | None:
    return None


def _no_function(origin: int) -> str | None:
    return None


@dataclass(slots=True)
class Tally:
    """Takes records in their order. `running`: rows that are open, with their origin.

    `called`: what invocations have spent at providers that are not closed yet; it counts when they are. One counts
    under the provider and model that it called first. `home` knows the key of a row that was closed earlier.
    """

    running: dict[str, int] = field(default_factory=dict)
    called: dict[str, list[Spent]] = field(default_factory=dict)
    home: Callable[[str], Key | None] = _nobody
    function_of: Callable[[int], str | None] = _no_function  # of an origin that was known earlier
    origins: dict[int, Origin] = field(default_factory=dict)
    closed: list[Closed] = field(default_factory=list)
    amended: list[Amended] = field(default_factory=list)
    streamed: list[Streamed] = field(default_factory=list)
    interrupted: list[Opened] = field(default_factory=list)
    settled: list[Spent] = field(default_factory=list)
    traced: list[Traced] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)  # those of `running` that were there before and are not any more
    keys: dict[str, Key] = field(default_factory=dict)  # of the rows that were closed here
    sums: dict[Key, list[float]] = field(default_factory=dict)

    def take(self, records: Iterable[Record]) -> None:
        """Add these."""
        for record in records:
            if isinstance(record, Opened):
                self.running[record.id] = record.origin
            elif isinstance(record, Closed):
                self._close(record)
            elif isinstance(record, Amended):
                self.amended.append(record)
                key = self._home(record.id) or (started_ms(record.id) // HOUR_MS, record.origin, "", "", "")
                self._sums(key)[5] += record.cpu_ns / 1e6
            elif isinstance(record, Streamed):
                self.streamed.append(record)
            elif isinstance(record, Known):
                self.origins[record.key] = record.origin
            elif isinstance(record, Traced):
                self.traced.append(record)
            elif isinstance(record, Scaled):
                self.scaled.append(record)
            elif isinstance(record, Started):
                self.interrupt()

    def call(self, calls: Iterable[Spent]) -> None:
        """These calls to providers have been made; their invocations may not have been taken yet."""
        for one in calls:
            self.called.setdefault(one.invocation, []).append(one)

    def settle(self) -> None:
        """Every record before the calls has been taken: those of no open row belong to closed ones, or to none."""
        for id in [id for id in self.called if id not in self.running]:
            home = self._home(id)
            for one in self.called.pop(id):
                self._spend(one, home if home is not None and self._is_of(home[1], one) else None)

    def _close(self, row: Closed) -> None:
        self.closed.append(row)
        if self.running.pop(row.id, None) is not None:
            self.ended.add(row.id)
        sums = self._end(row.id, row.origin, row.outcome)
        if row.outcome in REFUSED:
            sums[2] += 1
            return
        sums[0] += 1
        sums[1] += row.outcome in ERRORS
        sums[3] += row.cold
        sums[4] += row.duration_ms
        sums[5] += row.cpu_ns / 1e6
        sums[6] += row.gb_s
        sums[7] += row.bytes_in
        sums[8] += row.bytes_out

    def interrupt(self) -> None:
        """What is open will never be closed."""
        for id, origin in self.running.items():
            self.interrupted.append(Opened(id, origin))
            self.ended.add(id)
            sums = self._end(id, origin, "interrupted")
            sums[0] += 1
            sums[1] += 1
        self.running.clear()

    def _end(self, id: str, origin: int, outcome: str) -> list[float]:
        """The sums of an invocation that is over."""
        calls = self.called.pop(id, ()) if self.called else ()
        own = [one for one in calls if self._is_of(origin, one)]
        provider, model = (own[0].provider, own[0].model) if own else ("", "")
        key = self.keys[id] = (started_ms(id) // HOUR_MS, origin, outcome, provider, model)
        for one in calls:
            self._spend(one, key if one in own else None)
        return self._sums(key)

    def _is_of(self, origin: int, call: Spent) -> bool:
        """Whether an invocation is one of the function that says so: it could name another's."""
        known = self.origins.get(origin)
        return call.function == (known.function if known is not None else self.function_of(origin))

    def _spend(self, call: Spent, home: Key | None) -> None:
        """Add a call to its invocation, which ended there, or to no invocation of its function."""
        if home is None:
            origin = Origin(call.function, "", "")
            self.origins[origin.key] = origin
            home = (started_ms(call.id) // HOUR_MS, origin.key, "", "", "")
            call = call._replace(invocation="")
        self.settled.append(call)
        sums = self._sums((*home[:3], call.provider, call.model))
        sums[9] += call.tokens_in
        sums[10] += call.tokens_out
        sums[11] += call.cost_usd
        sums[12] += 1

    def _home(self, id: str) -> Key | None:
        return self.keys.get(id) or self.home(id)

    def _sums(self, key: Key) -> list[float]:
        sums = self.sums.get(key)
        if sums is None:
            sums = self.sums[key] = [0.0] * len(SUMS)
        return sums
