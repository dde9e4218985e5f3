"""What records come to: rows that are complete, rows that are open, and sums by hour (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lampyr.ledger.records import ERRORS, REFUSED, Amended, Closed, Known, Opened, Origin, Record, Started

HOUR_MS = 3_600_000
# What is added up, in the order of the columns of `hours` in the database.
SUMS = (
    *("invocations", "errors", "refused", "cold_starts", "billed_ms", "cpu_ms", "gb_s", "bytes_in", "bytes_out"),
    *("tokens_in", "tokens_out", "cost_usd"),
)
# Hour, origin and provider; "" is no provider.
Key = tuple[int, int, str]


def started_ms(id: str) -> int:
    """When an invocation arrived, which its id says (gateway/ids.py)."""
    return int(id[:11], 16)


@dataclass(slots=True)
class Tally:
    """Takes records in their order. `running`: rows that are open, with their origin."""

    running: dict[str, int] = field(default_factory=dict)
    origins: dict[int, Origin] = field(default_factory=dict)
    closed: list[Closed] = field(default_factory=list)
    amended: list[Amended] = field(default_factory=list)
    interrupted: list[Opened] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)  # those of `running` that were there before and are not any more
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
                self._sums(record.id, record.origin)[5] += record.cpu_ns / 1e6
            elif isinstance(record, Known):
                self.origins[record.key] = record.origin
            elif isinstance(record, Started):
                self.interrupt()

    def _close(self, row: Closed) -> None:
        self.closed.append(row)
        if self.running.pop(row.id, None) is not None:
            self.ended.add(row.id)
        sums = self._sums(row.id, row.origin)
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
            sums = self._sums(id, origin)
            sums[0] += 1
            sums[1] += 1
        self.running.clear()

    def _sums(self, id: str, origin: int) -> list[float]:
        key = (started_ms(id) // HOUR_MS, origin, "")
        sums = self.sums.get(key)
        if sums is None:
            sums = self.sums[key] = [0.0] * len(SUMS)
        return sums
