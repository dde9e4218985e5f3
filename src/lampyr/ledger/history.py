"""What happened, for people: figures of a time, the same over time, and single invocations, newest first.

All of it reads the database, which follows what happens by half a second (control/bookkeeping.py), and none of it
reads rows where sums will do: a million of them cost no more than a thousand.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lampyr.core.spread import percentile
from lampyr.ledger import schema
from lampyr.ledger.recent import DURATION, FIRST_BYTE, INIT, MINUTE_MS, STEPS, SUMS
from lampyr.ledger.records import ERRORS
from lampyr.ledger.store import DATABASE, opened

PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MAX_LATEST = 500
# Later than any invocation.
END_MS = 1 << 43


class Window(NamedTuple):
    """A time up to now: how many minutes, and of how many each point of a chart is."""

    name: str
    minutes: int
    step: int


WINDOWS = {
    one.name: one
    for one in (
        Window("15m", 15, 1),
        Window("1h", 60, 1),
        Window("6h", 360, 5),
        Window("24h", 1440, 5),
        Window("7d", 7 * 1440, 60),
    )
}


class Figures(NamedTuple):
    """What came to pass in a time. Times in ms, None where nothing was measured; `init` of cold starts only."""

    sums: dict[str, float]
    duration: dict[str, float | None]
    init: dict[str, float | None]
    first_byte: dict[str, float | None]


class Invocation(NamedTuple):
    """A row of the ledger (docs/metering.md); times in ms. One that is open has the outcome "running" and no times."""

    id: str
    function: str
    deployment: str
    region: str
    started_ms: int
    status: int
    cold: bool
    queue_ms: float
    init_ms: float
    first_byte_ms: float
    duration_ms: float
    cpu_ms: float
    memory_mb: float
    gb_s: float
    bytes_in: int
    bytes_out: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    provider: str
    model: str
    outcome: str

    @property
    def failed(self) -> bool:
        return self.outcome in ERRORS

    @property
    def told(self) -> dict[str, Any]:
        """As JSON has it: under all of the names that the view `invocations` has."""
        at = datetime.fromtimestamp(self.started_ms / 1000, UTC)
        started_at = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {**self._asdict(), "cold": bool(self.cold), "started_at": started_at, "billed_ms": self.duration_ms}

    @property
    def total_ms(self) -> float:
        """From its arrival to the last byte of its answer."""
        return self.queue_ms + self.init_ms + self.duration_ms


_COLUMNS = ", ".join(Invocation._fields)
_SUMMED = ", ".join(f"sum({name})" for name in SUMS)


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection | None]:
    """The database of a ledger, about one moment; None where there is none (yet) that this version has made."""
    if not (folder / DATABASE).exists():
        yield None
        return
    with closing(opened(folder / DATABASE)) as db:
        db.execute("BEGIN")
        yield db if db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION else None


def figures(db: sqlite3.Connection, window: Window, now_ms: int) -> tuple[dict[str, Figures], Figures]:
    """By function, without those that nobody called; and of all together."""
    sums: dict[str, dict[str, float]] = {}
    counts: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    for part in _parts(window, now_ms):
        query = f"SELECT function, {_SUMMED} FROM slots WHERE step = ? AND slot >= ? AND slot < ? GROUP BY function"
        for function, *values in db.execute(query, part):
            before = sums.setdefault(function, dict.fromkeys(SUMS, 0.0))
            sums[function] = {name: before[name] + value for name, value in zip(SUMS, values, strict=True)}
        query = """
            SELECT function, what, bucket, sum(count) FROM spreads WHERE step = ? AND slot >= ? AND slot < ?
            GROUP BY 1, 2, 3
        """
        for function, what, bucket, count in db.execute(query, part):
            counts[function, what][bucket] += count
            counts["", what][bucket] += count
    total = {name: sum(one[name] for one in sums.values()) for name in SUMS}
    return {function: _figures(values, counts, function) for function, values in sums.items()}, _figures(total, counts)


def _figures(
    sums: dict[str, float], counts: Mapping[tuple[str, int], Mapping[int, int]], function: str = ""
) -> Figures:
    def parts(what: int) -> dict[str, float | None]:
        spread = counts.get((function, what), {})
        return {name: percentile(spread, part) for name, part in PARTS.items()}

    return Figures(sums, parts(DURATION), parts(INIT), parts(FIRST_BYTE))


def beats(db: sqlite3.Connection, window: Window, now_ms: int) -> dict[str, list[tuple[int, int]]]:
    """Invocations and errors of each function in each step of the window, eldest first."""
    begin = _begin(window, now_ms)
    first, last = begin[1], now_ms // MINUTE_MS // window.step
    query = "SELECT function, slot, invocations, errors FROM slots WHERE step = ? AND slot >= ?"
    found: dict[str, list[tuple[int, int]]] = {}
    for function, at, invocations, errors in db.execute(query, begin):
        row = found.setdefault(function, [(0, 0)] * (last - first + 1))
        if first <= at <= last:
            row[at - first] = (int(invocations), int(errors))
    return found


def a_minute(db: sqlite3.Connection, function: str, now_ms: int) -> int:
    """Invocations in the last 60 s, of which those in the minute before this one are assumed to be spread evenly."""
    minute, passed = divmod(now_ms / MINUTE_MS, 1)
    query = "SELECT slot, invocations FROM slots WHERE step = 1 AND slot >= ? AND function = ?"
    slots = dict(db.execute(query, (int(minute) - 1, function)))
    return int(slots.get(int(minute), 0) + slots.get(int(minute) - 1, 0) * (1 - passed) + 0.5)


def series(db: sqlite3.Connection, window: Window, now_ms: int, function: str | None = None) -> dict[str, list[Any]]:
    """Columns of equal length: `time` (s since 1970, when each step began), the sums, and percentiles in ms."""
    columns = no_series(window, now_ms)
    begin, step = _begin(window, now_ms), window.step
    first, last = begin[1], now_ms // MINUTE_MS // step
    mine, given = ("AND function = ?", (function,)) if function is not None else ("", ())
    query = f"SELECT slot, {_SUMMED} FROM slots WHERE step = ? AND slot >= ? {mine} GROUP BY 1"
    sums = {at: values for at, *values in db.execute(query, (*begin, *given))}
    counts: defaultdict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    query = f"""
        SELECT slot, what, bucket, sum(count) FROM spreads WHERE step = ? AND slot >= ? {mine} GROUP BY 1, 2, 3
    """
    for at, what, bucket, count in db.execute(query, (*begin, *given)):
        counts[at, what][bucket] = count
    for number, name in enumerate(SUMS):
        columns[name] = [sums[at][number] if at in sums else 0 for at in range(first, last + 1)]
    for prefix, what in (("", DURATION), ("init_", INIT), ("first_byte_", FIRST_BYTE)):
        for name, part in PARTS.items():
            columns[prefix + name] = [percentile(counts.get((at, what), {}), part) for at in range(first, last + 1)]
    return columns


def instances(db: sqlite3.Connection, window: Window, now_ms: int, function: str) -> list[int]:
    """The most that a function had of them in each step of the window, eldest first."""
    begin = _begin(window, now_ms)
    query = "SELECT slot, most FROM instances WHERE step = ? AND slot >= ? AND function = ?"
    most = dict(db.execute(query, (*begin, function)))
    return [most.get(at, 0) for at in range(begin[1], now_ms // MINUTE_MS // window.step + 1)]


def peak(db: sqlite3.Connection, function: str) -> int:
    """The most instances that a function has had, as far back as that is kept."""
    query = "SELECT max(most) FROM instances WHERE step = ? AND function = ?"
    return int(db.execute(query, (max(STEPS), function)).fetchone()[0] or 0)


def no_series(window: Window, now_ms: int) -> dict[str, list[Any]]:
    """The columns of a time in which there was nothing."""
    first, step = _begin(window, now_ms)[1], window.step
    columns: dict[str, list[Any]] = {"time": [at * step * 60 for at in range(first, now_ms // MINUTE_MS // step + 1)]}
    columns.update((name, [0] * len(columns["time"])) for name in SUMS)
    prefixes = ("", "init_", "first_byte_")
    columns.update((prefix + part, [None] * len(columns["time"])) for prefix in prefixes for part in PARTS)
    return columns


def latest(
    db: sqlite3.Connection,
    *,
    function: str | None = None,
    failed: bool = False,
    before: str = "",
    limit: int = 50,
) -> list[Invocation]:
    """Invocations, newest first: of one function, or only those that went wrong, older than the id `before`."""
    limit = min(limit, MAX_LATEST)
    if function is None and not failed:
        where = "id < ?" if before else "?1 = ''"
        return _read(db, f"WHERE {where} ORDER BY id DESC LIMIT {limit}", (before,))
    mine, given = _mine(db, function)
    outcomes = f"AND outcome IN ({', '.join(repr(word) for word in sorted(ERRORS))})" if failed else ""
    found: list[Invocation] = []
    for begin_ms, end_ms in _busy(db, function, failed, before):
        end = min(f"{end_ms:011x}", before) if before else f"{end_ms:011x}"
        where = f"WHERE id >= ? AND id < ? {mine} {outcomes} ORDER BY id DESC LIMIT {limit - len(found)}"
        found += _read(db, where, (f"{begin_ms:011x}", end, *given))
        if len(found) >= limit:
            break
    return found


def one(db: sqlite3.Connection, id: str) -> Invocation | None:
    """The row of an invocation."""
    return next(iter(_read(db, "WHERE id = ?", (id,))), None)


def _read(db: sqlite3.Connection, where: str, given: tuple[object, ...]) -> list[Invocation]:
    """The order is that of the table, so that nothing is sorted; names come afterwards."""
    columns = _COLUMNS.replace("function, deployment, region", "origin")
    columns = columns.replace("first_byte_ms", "coalesce(first_byte_ms, duration_ms)")
    rows = db.execute(f"SELECT {columns} FROM rows {where}", given).fetchall()
    origins = {
        key: names
        for key, *names in db.execute(
            f"SELECT key, function, deployment, region FROM origins WHERE key IN ({', '.join('?' * len(rows))})",
            [origin for _, origin, *_ in rows],
        )
    }
    unknown = ["?", "", ""]
    return [
        Invocation._make((id, *origins.get(origin, unknown), started_ms, status, bool(cold), *rest))
        for id, origin, started_ms, status, cold, *rest in rows
    ]


def _busy(db: sqlite3.Connection, function: str | None, failed: bool, before: str) -> Iterator[tuple[int, int]]:
    """Times (ms) in which there was such an invocation, newest first: by five minutes as far as those are kept."""
    until_ms = int(before[:11], 16) + 1 if before else END_MS
    mine, given = ("AND function = ?", (function,)) if function is not None else ("", ())
    count = "errors" if failed else "invocations + refused"
    for step in (5, 60):
        step_ms = step * MINUTE_MS
        (newest,) = db.execute("SELECT max(slot) FROM slots WHERE step = ?", (step,)).fetchone()
        (eldest,) = db.execute("SELECT min(slot) FROM slots WHERE step = ?", (step,)).fetchone()
        if newest is None:
            return
        if until_ms > newest * step_ms:  # what runs is in no sum before it has ended
            yield newest * step_ms, until_ms
            until_ms = newest * step_ms
        query = f"SELECT DISTINCT slot FROM slots WHERE step = ? AND slot < ? {mine} AND {count} > 0 ORDER BY 1 DESC"
        for (slot,) in db.execute(query, (step, -(-until_ms // step_ms), *given)).fetchall():
            yield slot * step_ms, min((slot + 1) * step_ms, until_ms)
        until_ms = min(until_ms, eldest * step_ms)


def _mine(db: sqlite3.Connection, function: str | None) -> tuple[str, tuple[object, ...]]:
    """A condition for one function's rows, and what it is given."""
    if function is None:
        return "", ()
    keys = tuple(key for (key,) in db.execute("SELECT key FROM origins WHERE function = ?", (function,)))
    return f"AND origin IN ({', '.join('?' * len(keys))})", keys


def _parts(window: Window, now_ms: int) -> list[tuple[int, int, int]]:
    """A window in steps as long as can be: step, first slot, and the one behind the last."""
    step, first = _begin(window, now_ms)
    end = now_ms // MINUTE_MS // step + 1
    hours, hours_end = -(-first * step // 60), now_ms // MINUTE_MS // 60
    if step == 60 or hours >= hours_end:
        return [(step, first, end)]
    return [(step, first, hours * 60 // step), (60, hours, hours_end), (step, hours_end * 60 // step, end)]


def _begin(window: Window, now_ms: int) -> tuple[int, int]:
    """The step of a window, and its first slot."""
    assert window.step in STEPS
    return window.step, (now_ms // MINUTE_MS - window.minutes) // window.step + 1


def is_id(text: str) -> bool:
    """Whether an invocation may be called that (gateway/ids.py)."""
    return len(text) == 24 and all(char in "0123456789abcdef" for char in text)
