"""Sums and spreads by function over time: what charts are made of, so that nobody reads rows for them.

They are made for many rows at once, like the counts of ever.py, and in the same transaction as the rows.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import itemgetter

from lampyr.core import spread
from lampyr.ledger.ever import Functions
from lampyr.ledger.records import ERRORS, REFUSED, Closed, Scaled
from lampyr.ledger.tally import Tally, by_time, started_ms

MINUTE_MS = 60_000
# Steps of so many minutes are kept for so many minutes: a chart has a few hundred points, whatever it spans.
STEPS = {1: 3 * 60, 5: 49 * 60, 60: 400 * 24 * 60}
SUMS = (
    *("invocations", "errors", "refused", "cold_starts", "billed_ms", "cpu_ms", "gb_s"),
    *("tokens_in", "tokens_out", "cost_usd"),
)
# What is counted in spreads: how long handlers took, how long new instances took to be ready, and how long streams took
# to their first byte.
DURATION, INIT, FIRST_BYTE = range(3)

_SUMS = f"""
    INSERT INTO slots VALUES (?, ?, ?, {", ".join("?" * len(SUMS))})
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)}
"""
_SPREADS = "INSERT INTO spreads VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"

_MOST = "INSERT INTO instances VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET most = max(most, excluded.most)"

_outcome, _cold = itemgetter(4), itemgetter(3)
Place = tuple[int, str]  # minute and function


class _Sums(dict[Place, list[float]]):
    def __missing__(self, place: Place) -> list[float]:
        self[place] = row = [0.0] * len(SUMS)
        return row


def add(db: sqlite3.Connection, tally: Tally) -> None:
    """Add what is in `tally`, whose origins are in the database, within the transaction that has begun."""
    functions = Functions(db)
    sums, spreads = _Sums(), Counter[tuple[int, str, int, int]]()
    for origin, own in tally.by_origin().items():
        for minute, rows in by_time(own, MINUTE_MS):
            _add_rows(sums, spreads, (minute, functions[origin]), rows)
    for cut in tally.interrupted:
        of = sums[_minute(cut.id), functions[cut.origin]]
        of[0] += 1
        of[1] += 1
    for more in tally.amended:
        sums[_minute(more.id), functions[more.origin]][5] += more.cpu_ns / 1e6
    for call in tally.settled:
        of = sums[_minute(call.id), call.function]
        for number, spent in enumerate((call.tokens_in, call.tokens_out, call.cost_usd), 7):
            of[number] += spent
    for first in tally.streamed:
        bucket = spread.bucket(first.first_byte_ms)
        spreads[_minute(first.id), functions[first.origin], FIRST_BYTE, bucket] += 1
    _write(db, sums, spreads)
    _write_most(db, tally.scaled)


def forget(db: sqlite3.Connection, now_s: float) -> None:
    """Remove the steps that are too old."""
    for step, kept in STEPS.items():
        before = (step, int(now_s / 60 - kept) // step)
        db.execute("DELETE FROM slots WHERE step = ? AND slot < ?", before)
        db.execute("DELETE FROM spreads WHERE step = ? AND slot < ?", before)
        db.execute("DELETE FROM instances WHERE step = ? AND slot < ?", before)


def _minute(id: str) -> int:
    return started_ms(id) // MINUTE_MS


def _add_rows(sums: _Sums, spreads: Counter[tuple[int, str, int, int]], place: Place, rows: list[Closed]) -> None:
    outcomes = Counter(map(_outcome, rows))
    refused = sum(outcomes[word] for word in REFUSED)
    if refused:
        rows = [row for row in rows if row[4] not in REFUSED]
    cold = [row for row in rows if row[3]]
    figures = (
        len(rows),
        sum(outcomes[word] for word in ERRORS),
        refused,
        len(cold),
        sum([row[7] for row in rows]),
        sum([row[8] for row in rows]) / 1e6,
        sum([row[10] for row in rows]),
    )
    of = sums[place]
    for number, value in enumerate(figures):
        of[number] += value
    for what, times_ms in ((DURATION, [row[7] for row in rows]), (INIT, [row[6] for row in cold])):
        for bucket, count in _buckets(times_ms):
            spreads[(*place, what, bucket)] += count


def _buckets(times_ms: Iterable[float]) -> Iterator[tuple[int, int]]:
    """How many of the times are in each bucket: a step for each bucket and not for each time."""
    ordered, at = sorted(times_ms), 0
    while at < len(ordered):
        bucket = spread.bucket(ordered[at])
        # A time on the edge of two may be in either, by the rounding of its logarithm; it is never looked at twice.
        end = max(bisect_right(ordered, spread.end_ms(bucket), at), at + 1)
        yield bucket, end - at
        at = end


def _write(db: sqlite3.Connection, sums: _Sums, spreads: Counter[tuple[int, str, int, int]]) -> None:
    for step in STEPS:
        folded = _Sums()
        for (minute, function), values in sums.items():
            of = folded[minute // step, function]
            for number, value in enumerate(values):
                of[number] += value
        db.executemany(_SUMS, ((step, *place, *values) for place, values in folded.items()))
        counts = Counter[tuple[int, int, str, int]]()
        for (minute, function, what, bucket), count in spreads.items():
            counts[minute // step, what, function, bucket] += count
        db.executemany(_SPREADS, ((step, *key, count) for key, count in counts.items()))


def _write_most(db: sqlite3.Connection, scaled: list[Scaled]) -> None:
    """The most instances that a function had in each step: a step without any has no row."""
    for step in STEPS:
        most: dict[tuple[int, str], int] = {}
        for one in scaled:
            place = (one.at_ms // MINUTE_MS // step, one.function)
            most[place] = max(most.get(place, 0), one.most)
        db.executemany(_MOST, ((step, *place, count) for place, count in most.items()))
