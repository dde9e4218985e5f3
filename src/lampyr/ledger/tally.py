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
    keys: dict[str, Key] = field(default_factory=dict)  # of the rows that were closed here
    sums: dict[Key, list[float]] = field(default_factory=dict)

    def take(self, records: Iterable[Record]) -> None:
        """Add these."""
        closed: list[Closed] = []
        for record in records:
            if isinstance(record, Closed):
                self.running.pop(record.id, None)
                closed.append(record)
            elif isinstance(record, Opened):
                self.running[record.id] = record.origin
            else:
                self._close(closed)
                closed = []
                self._take(record)
        self._close(closed)

    def _take(self, record: Record) -> None:
        """What comes less often than rows."""
        if isinstance(record, Amended):
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

    def by_origin(self) -> dict[int, list[Closed]]:
        """The complete rows."""
        found: dict[int, list[Closed]] = {}
        for row in self.closed:
            rows = found.get(row[1])
            if rows is None:
                rows = found[row[1]] = []
            rows.append(row)
        return found

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

    def _close(self, rows: list[Closed]) -> None:
        """These are complete. They are added up for many at once, but for the few that have called providers."""
        self.closed += rows
        groups: dict[tuple[int, str], list[Closed]] = {}
        for row in rows:
            if self.called and row.id in self.called:
                _add(self._end(row.id, row.origin, row.outcome), row.outcome, [row])
                continue
            of = (row[1], row[4])
            group = groups.get(of)
            if group is None:
                group = groups[of] = []
            group.append(row)
        for (origin, outcome), group in groups.items():
            for hour, part in by_time(group, HOUR_MS):
                key = (hour, origin, outcome, "", "")
                self.keys.update(dict.fromkeys([row[0] for row in part], key))
                _add(self._sums(key), outcome, part)

    def interrupt(self) -> None:
        """What is open will never be closed."""
        for id, origin in self.running.items():
            self.interrupted.append(Opened(id, origin))
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


def by_time(rows: list[Closed], step_ms: int) -> list[tuple[int, list[Closed]]]:
    """Rows by when they arrived, in steps since 1970. Mostly that is one, and then nobody looks at each."""
    ids = [row[0] for row in rows]
    first, last = started_ms(min(ids)) // step_ms, started_ms(max(ids)) // step_ms
    if first == last:
        return [(first, rows)]
    parts: dict[int, list[Closed]] = {}
    for row in rows:
        parts.setdefault(started_ms(row[0]) // step_ms, []).append(row)
    return list(parts.items())


def _add(sums: list[float], outcome: str, rows: list[Closed]) -> None:
    """Rows that ended in the same way."""
    if outcome in REFUSED:
        sums[2] += len(rows)
        return
    sums[0] += len(rows)
    sums[1] += len(rows) if outcome in ERRORS else 0
    _, _, _, cold, _, _, _, duration_ms, cpu_ns, _, gb_s, bytes_in, bytes_out = zip(*rows, strict=True)
    for at, values in enumerate((cold, duration_ms), 3):
        sums[at] += sum(values)
    sums[5] += sum(cpu_ns) / 1e6
    for at, values in enumerate((gb_s, bytes_in, bytes_out), 6):
        sums[at] += sum(values)
