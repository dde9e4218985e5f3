"""The database of invocations: one writer, in one transaction for many rows together with how far the journal was read.

So a row is there exactly once, however often and wherever its writer is killed: either rows and position are both
there, or neither is. Sums by hour and by day stand beside the rows; the usual questions never look at the rows
themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from lampyr.errors import StateError
from lampyr.ledger import ever, journal, recent, schema
from lampyr.ledger.journal import Position
from lampyr.ledger.records import Asked, Origin, Spent, Started
from lampyr.ledger.tally import HOUR_MS, SUMS, Key, Tally, started_ms

DATABASE = "ledger.db"
# Rows and calls are kept for as many days as the settings say, sums by hour for these, sums by day for good.
KEEP_HOURS_DAYS = 400
FORGET_ROWS = 20_000
# A function may ask for a model of any name, and each has sums for good: those after so many are one.
MOST_MODELS = 500
OTHER_MODELS = "(others)"
# What the write-ahead log may keep of the disk when a reader has let it grow.
WAL_BYTES = 16 * 1024 * 1024

# What a `Closed` has, and when it arrived.
_ROW = """
    INSERT OR IGNORE INTO rows VALUES
        (?1, ?2, ?14, ?3, ?4, ?5, ?6, ?7, ?8, ?9 / 1e6, ?10 / 1024.0, ?11, ?12, ?13, 0, 0, 0, '', '', NULL)
"""
_OPEN = "INSERT OR IGNORE INTO rows (id, origin, started_ms, outcome) VALUES (?, ?, ?, ?)"
_CALL = "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ASKED = "INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SPENT = """
    UPDATE rows SET tokens_in = tokens_in + ?, tokens_out = tokens_out + ?, cost_usd = cost_usd + ?,
        model = iif(provider = '', ?, model), provider = iif(provider = '', ?, provider)
    WHERE id = ?
"""
_ADD = f"""
    VALUES (?, ?, ?, ?, ?, {", ".join("?" * len(SUMS))})
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)}
"""
_SUMMED = ", ".join(f"SUM({name})" for name in SUMS)
# What a question's groups are in the table of hours; in that of days only its days are.
_GROUPS = {"function": "ifnull(function, '?')", "day": "hour / 24"}


class Store:
    """The writing end: one process has it, whoever holds the lock on the state directory.

    `told` is called with what has been taken in, and the origins of its rows.
    """

    def __init__(self, folder: Path, told: Callable[[Tally, Mapping[int, Origin]], None] | None = None) -> None:
        self._told = told
        self._journal = folder / "journal"
        self._calls = folder / "calls"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / DATABASE, isolation_level=None, check_same_thread=False)
        schema.bring_up(self._db)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        self.position = _position(self._db, "journal")
        self._called_to = _position(self._db, "calls")
        self._running = _running(self._db)
        self._called = _called(self._db)
        self._asked = _asked(self._db)
        self._models = _models(self._db)

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()

    def absorb(self, most_rows: int) -> int:
        """Take up to about `most_rows` records from the journals into the database; how many there were."""
        tally = Tally(running=dict(self._running), called={id: [*calls] for id, calls in self._called.items()})
        tally.home = lambda id: _home(self._db, id)
        tally.function_of = lambda origin: _function(self._db, origin)
        # Calls first: by then their invocations stand in the other journal.
        asked = dict(self._asked)
        calls, called_to = _read_calls(self._calls, self._called_to, self._models, asked)
        tally.call(calls)
        count, position = 0, self.position
        for records, reached in journal.read(self._journal, position):
            tally.take(records)
            position = reached
            count += len(records)
            if count >= most_rows:
                break
        else:
            tally.settle()
        if count or calls or tally.settled:
            self._keep(tally, position, calls, called_to, asked)
            journal.forget(self._journal, position)
            journal.forget(self._calls, called_to)
            if self._told is not None:
                self._told(tally, self._origins({row.origin for row in tally.closed}))
        return count

    def _origins(self, keys: Iterable[int]) -> dict[int, Origin]:
        asked = "SELECT function, deployment, region FROM origins WHERE key = ?"
        found = ((key, self._db.execute(asked, (key,)).fetchone()) for key in keys)
        return {key: Origin(*names) for key, names in found if names}

    def _keep(
        self, tally: Tally, position: Position, calls: list[Spent], called_to: Position, asked: dict[str, Spent]
    ) -> None:
        with _transaction(self._db) as db:
            origins = ((key, *origin) for key, origin in tally.origins.items())
            db.executemany("INSERT OR IGNORE INTO origins VALUES (?, ?, ?, ?)", origins)
            db.executemany(
                "DELETE FROM rows WHERE id = ?", ((id,) for id in self._running.keys() - tally.running.keys())
            )
            db.executemany(_ROW, [(*row, started_ms(row[0])) for row in tally.closed])
            opened = {id: origin for id, origin in tally.running.items() if id not in self._running}
            db.executemany(_OPEN, ((id, origin, started_ms(id), "running") for id, origin in opened.items()))
            cut = ((id, origin, started_ms(id), "interrupted") for id, origin in tally.interrupted)
            db.executemany(_OPEN, cut)
            more = ((one.cpu_ns / 1e6, one.id) for one in tally.amended)
            db.executemany("UPDATE rows SET cpu_ms = cpu_ms + ? WHERE id = ?", more)
            first = ((one.first_byte_ms, one.id) for one in tally.streamed)
            db.executemany("UPDATE rows SET first_byte_ms = ? WHERE id = ?", first)
            db.executemany(_CALL, ((*one[:9], 0) for one in calls))
            db.executemany("DELETE FROM asked WHERE id = ?", ((id,) for id in self._asked.keys() - asked.keys()))
            db.executemany(_ASKED, (one[:9] for one in asked.values() if self._asked.get(one.id) != one))
            db.executemany(_SPENT, ((*one[5:8], one.model, one.provider, one.invocation) for one in tally.settled))
            db.executemany("UPDATE calls SET settled = 1 WHERE id = ?", ((one.id,) for one in tally.settled))
            db.executemany(f"INSERT INTO hours {_ADD}", ((*key, *sums) for key, sums in tally.sums.items()))
            days = ((key[0] // 24, *key[1:], *sums) for key, sums in tally.sums.items())
            db.executemany(f"INSERT INTO days {_ADD}", days)
            ever.add(db, tally)
            recent.add(db, tally)
            to = (("journal", *position), ("calls", *called_to))
            db.executemany("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", to)
        self.position, self._running = position, tally.running
        self._called_to, self._called, self._asked = called_to, tally.called, asked

    def forget(self, now_s: float, keep_days: float) -> int:
        """Remove some of the rows that are too old and give their pages back; how many there were."""
        eldest = f"{max(int((now_s - keep_days * 86400) * 1000), 0):011x}"
        old = "DELETE FROM {0} WHERE id IN (SELECT id FROM {0} WHERE id < ? AND {1} LIMIT ?)"
        count = 0
        for table, done in (("rows", "outcome <> 'running'"), ("calls", "settled")):
            count += self._db.execute(old.format(table, done), (eldest, FORGET_ROWS)).rowcount
        eldest_day = int(now_s // 86400) - KEEP_HOURS_DAYS
        count += self._db.execute("DELETE FROM hours WHERE hour < ?", (eldest_day * 24,)).rowcount
        recent.forget(self._db, now_s)
        if count:
            self._db.executescript("PRAGMA incremental_vacuum")  # `execute` takes one step of it, which is one page
        return count

    def backlog(self) -> int:
        """How many segments of the journal are waiting."""
        return len(journal.numbers(self._journal))


class Totals(NamedTuple):
    """Sums of each group (in the order of SUMS), and the first hour since 1970; None: nothing is there."""

    groups: dict[str | int, list[float]]
    first_hour: int | None


def totals(folder: Path, by: str, since_hour: int = 0) -> Totals:
    """All that is known at this moment: the database and what the journals have behind it.

    By function, provider, model or outcome, or by hour or day since 1970. What is open is not in it: it is closed by
    its end, or by the next start of a server as interrupted. Raises StateError.
    """
    for _ in range(100):
        try:
            return _totals(folder, by, since_hour)
        except FileNotFoundError:  # a segment has just become part of the database
            continue
        except sqlite3.Error as error:
            hint = f"try again; a damaged {DATABASE} can be moved away, and the next start makes a new one"
            raise StateError(f"the ledger in {folder} cannot be read: {error}", hint) from error
    raise StateError(f"the ledger in {folder} changes too fast to be read", "try again")


def opened(database: Path) -> sqlite3.Connection:
    """The database, to be read. Raises sqlite3.Error.

    One whose keeper was killed while it made or brought up its tables has to be put right by whoever opens it next.
    """
    for _ in range(2):
        db = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        try:
            db.execute("PRAGMA user_version").fetchone()
            return db
        except sqlite3.OperationalError as error:
            db.close()
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                raise
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as keeper:
            keeper.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)


def _totals(folder: Path, by: str, since_hour: int) -> Totals:
    database = folder / DATABASE
    if not database.exists():
        return _with_tail(Totals({}, None), folder, by, since_hour, Tally(), Position(), Position(), set(), {})
    with closing(opened(database)) as db:
        db.execute("BEGIN")  # all of the following is about one moment
        shape = schema.version(db)
        if 0 < shape < schema.VERSION:
            message = f"the ledger in {folder} was written by an earlier Lampyr"
            raise StateError(message, "start the server once; it brings the ledger up to date")
        if not shape:
            return _with_tail(Totals({}, None), folder, by, since_hour, Tally(), Position(), Position(), set(), {})
        first_hour, asked, since = _question(db, by, since_hour)
        found = Totals({group: sums for group, *sums in db.execute(asked, (since,))}, first_hour)
        tally = Tally(running=_running(db), called=_called(db), home=lambda id: _home(db, id))
        tally.function_of = lambda origin: _function(db, origin)
        if by == "function":
            rows = db.execute("SELECT key, function, deployment, region FROM origins")
            tally.origins = {key: Origin(*rest) for key, *rest in rows}
        to = _position(db, "journal"), _position(db, "calls")
        return _with_tail(found, folder, by, since_hour, tally, *to, _models(db), _asked(db))


def _question(db: sqlite3.Connection, by: str, since_hour: int) -> tuple[int | None, str, int]:
    """The first hour there is, and what to ask: of the days where that is enough, or where the hours are forgotten."""
    group = _GROUPS.get(by, by)
    (hour,) = db.execute("SELECT min(hour) FROM hours WHERE hour >= ?", (since_hour,)).fetchone()
    (eldest,) = db.execute("SELECT ifnull(min(hour), 1e9) FROM hours").fetchone()
    (day,) = db.execute(
        "SELECT min(day) FROM days WHERE day BETWEEN ? AND ?", (since_hour // 24, eldest // 24 - 1)
    ).fetchone()
    forgotten = day is not None
    if by == "hour" or (since_hour % 24 and not forgotten):
        table, since = "hours", since_hour
    else:
        table, since, group = "days", since_hour // 24, "day" if by == "day" else group
    joined = " LEFT JOIN origins ON origins.key = origin" if by == "function" else ""
    asked = f"SELECT {group}, {_SUMMED} FROM {table}{joined} WHERE {table[:-1]} >= ? GROUP BY 1"
    return day * 24 if forgotten else hour, asked, since


def _with_tail(
    found: Totals,
    folder: Path,
    by: str,
    since_hour: int,
    tally: Tally,
    position: Position,
    called_to: Position,
    models: set[str],
    asked: dict[str, Spent],
) -> Totals:
    """With what stands in the journals behind these positions."""
    groups, first_hour = found
    tally.call(_read_calls(folder / "calls", called_to, models, asked)[0])
    for records, _ in journal.read(folder / "journal", position):
        tally.take(records)
    tally.settle()
    for key, sums in tally.sums.items():
        if key[0] >= since_hour:
            first_hour = key[0] if first_hour is None else min(first_hour, key[0])
            total = groups.setdefault(_group(by, key, tally.origins), [0.0] * len(SUMS))
            for number, value in enumerate(sums):
                total[number] += value
    return Totals(groups, first_hour)


def _group(by: str, key: Key, origins: dict[int, Origin]) -> str | int:
    hour, origin, outcome, provider, model = key
    function = origins[origin].function if origin in origins else "?"
    groups = {"function": function, "outcome": outcome, "provider": provider, "model": model}
    return groups.get(by, hour if by == "hour" else hour // 24)


def _read_calls(
    folder: Path, position: Position, models: set[str], asked: dict[str, Spent]
) -> tuple[list[Spent], Position]:
    """The calls that are over by what their journal says. Their models are added to those that are known.

    `asked` are those under way, by id; a broker that begins says that they have ended with the one before.
    """
    found: list[Spent] = []
    for records, reached in journal.read(folder, position):
        for one in records:
            if isinstance(one, Asked):
                asked[one.call.id] = one.call
            elif isinstance(one, Spent):
                asked.pop(one.id, None)
                found.append(_of_few_models(one, models))
            elif isinstance(one, Started):
                found += [_of_few_models(call, models) for call in asked.values()]
                asked.clear()
        position = reached
    return found, position


def _of_few_models(call: Spent, models: set[str]) -> Spent:
    if call.model and call.model not in models:
        if len(models) >= MOST_MODELS:
            call = call._replace(model=OTHER_MODELS)
        models.add(call.model)
    return call


def _models(db: sqlite3.Connection) -> set[str]:
    found = db.execute("SELECT model FROM days UNION SELECT model FROM calls WHERE settled = 0")
    return {model for (model,) in found if model}


def counted(folder: Path) -> ever.Ever:
    """What the database has counted; it follows what happens by half a second."""
    if not (folder / DATABASE).exists():
        return ever.Ever({}, {}, {})
    with closing(opened(folder / DATABASE)) as db:
        db.execute("BEGIN")  # all of it is about one moment
        shape = schema.version(db)
        return ever.read(db) if shape == schema.VERSION else ever.Ever({}, {}, {})


def _position(db: sqlite3.Connection, name: str) -> Position:
    return Position(*db.execute("SELECT segment, place FROM position WHERE journal = ?", (name,)).fetchone())


def _running(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT id, origin FROM rows WHERE outcome = 'running'").fetchall())


def _called(db: sqlite3.Connection) -> dict[str, list[Spent]]:
    found: dict[str, list[Spent]] = {}
    for *call, _ in db.execute("SELECT * FROM calls WHERE settled = 0"):
        found.setdefault(call[1], []).append(Spent(*call))
    return found


def _asked(db: sqlite3.Connection) -> dict[str, Spent]:
    return {call[0]: Spent(*call) for call in db.execute("SELECT * FROM asked")}


def _function(db: sqlite3.Connection, origin: int) -> str | None:
    found = db.execute("SELECT function FROM origins WHERE key = ?", (origin,)).fetchone()
    return str(found[0]) if found else None


def _home(db: sqlite3.Connection, id: str) -> Key | None:
    """Where a closed row counts."""
    asked = "SELECT origin, outcome, provider, model FROM rows WHERE id = ? AND outcome <> 'running'"
    found = db.execute(asked, (id,)).fetchone()
    return (started_ms(id) // HOUR_MS, *found) if found else None


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
