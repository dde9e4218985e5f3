"""The database of invocations: one writer, in one transaction for many rows together with how far the journal was read.

So a row is there exactly once, however often and wherever its writer is killed: either rows and position are both
there, or neither is. Sums by hour stand beside the rows; the usual questions never look at the rows themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lampyr.errors import StateError
from lampyr.ledger import journal
from lampyr.ledger.journal import Position
from lampyr.ledger.records import Closed, Origin
from lampyr.ledger.tally import SUMS, Tally, started_ms

DATABASE = "ledger.db"
VERSION = 1
# Rows are kept so long; the sums by hour stay.
KEEP_DAYS = 30
FORGET_ROWS = 20_000

_SCHEMA = f"""
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS origins (key INTEGER PRIMARY KEY, function TEXT, deployment TEXT, region TEXT);
    CREATE TABLE IF NOT EXISTS rows (
        id TEXT PRIMARY KEY, origin INTEGER, started_ms INTEGER, status INTEGER DEFAULT 0, cold INTEGER DEFAULT 0,
        outcome TEXT, queue_ms REAL DEFAULT 0, init_ms REAL DEFAULT 0, duration_ms REAL DEFAULT 0,
        cpu_ms REAL DEFAULT 0, memory_mb REAL DEFAULT 0, gb_s REAL DEFAULT 0,
        bytes_in INTEGER DEFAULT 0, bytes_out INTEGER DEFAULT 0,
        tokens_in INTEGER DEFAULT 0, tokens_out INTEGER DEFAULT 0, cost_usd REAL DEFAULT 0, provider TEXT DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS running ON rows (id) WHERE outcome = 'running';
    CREATE TABLE IF NOT EXISTS hours (
        hour INTEGER, origin INTEGER, provider TEXT, {", ".join(f"{name} REAL DEFAULT 0" for name in SUMS)},
        PRIMARY KEY (hour, origin, provider)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), segment INTEGER, place INTEGER);
    INSERT OR IGNORE INTO position VALUES (1, 0, 0);
    CREATE VIEW IF NOT EXISTS invocations AS
        SELECT id, function, deployment, region, started_ms, status, cold, queue_ms, init_ms, duration_ms, cpu_ms,
            memory_mb, duration_ms AS billed_ms, gb_s, bytes_in, bytes_out, tokens_in, tokens_out, cost_usd, provider,
            outcome
        FROM rows LEFT JOIN origins ON origins.key = rows.origin;
    PRAGMA user_version = {VERSION};
"""
_ROW = "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '')"
_OPEN = "INSERT OR IGNORE INTO rows (id, origin, started_ms, outcome) VALUES (?, ?, ?, ?)"
_HOUR = f"""
    INSERT INTO hours VALUES (?, ?, ?, {", ".join("?" * len(SUMS))})
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)}
"""


class Store:
    """The writing end: one process has it, whoever holds the lock on the state directory."""

    def __init__(self, folder: Path) -> None:
        self._journal = folder / "journal"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / DATABASE, isolation_level=None, check_same_thread=False)
        _check_version(self._db)
        self._db.executescript(_SCHEMA)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self.position = _position(self._db)
        self._running = _running(self._db)

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()

    def absorb(self, most_rows: int) -> int:
        """Take up to about `most_rows` records from the journal into the database; how many there were."""
        tally, count, position = Tally(running=dict(self._running)), 0, self.position
        for records, reached in journal.read(self._journal, position):
            tally.take(records)
            position = reached
            count += len(records)
            if count >= most_rows:
                break
        if count:
            self._keep(tally, position)
            journal.forget(self._journal, position)
        return count

    def _keep(self, tally: Tally, position: Position) -> None:
        with _transaction(self._db) as db:
            origins = ((key, *origin) for key, origin in tally.origins.items())
            db.executemany("INSERT OR IGNORE INTO origins VALUES (?, ?, ?, ?)", origins)
            db.executemany("DELETE FROM rows WHERE id = ?", ((id,) for id in tally.ended & self._running.keys()))
            db.executemany(_ROW, map(_row, tally.closed))
            opened = {id: origin for id, origin in tally.running.items() if id not in self._running}
            db.executemany(_OPEN, ((id, origin, started_ms(id), "running") for id, origin in opened.items()))
            cut = ((id, origin, started_ms(id), "interrupted") for id, origin in tally.interrupted)
            db.executemany(_OPEN, cut)
            more = ((one.cpu_ns / 1e6, one.id) for one in tally.amended)
            db.executemany("UPDATE rows SET cpu_ms = cpu_ms + ? WHERE id = ?", more)
            db.executemany(_HOUR, ((*key, *sums) for key, sums in tally.sums.items()))
            db.execute("UPDATE position SET segment = ?, place = ?", position)
        self.position, self._running = position, tally.running

    def forget(self, now_s: float) -> int:
        """Remove some of the rows that are too old and give their pages back; how many there were."""
        eldest = f"{int((now_s - KEEP_DAYS * 86400) * 1000):011x}"
        old = "DELETE FROM rows WHERE id IN (SELECT id FROM rows WHERE id < ? AND outcome <> 'running' LIMIT ?)"
        count = self._db.execute(old, (eldest, FORGET_ROWS)).rowcount
        if count:
            self._db.execute("PRAGMA incremental_vacuum")
        return count

    def backlog(self) -> int:
        """How many segments of the journal are waiting."""
        return len(journal.numbers(self._journal))


def totals(folder: Path) -> dict[tuple[int, Origin, str], list[float]]:
    """All that is known at this moment by hour, origin and provider: the database and what the journal has behind it.

    What is open is not in it: it is closed by its end, or by the next start of a server as interrupted.
    """
    for _ in range(100):
        try:
            return _totals(folder)
        except FileNotFoundError:  # a segment has just become part of the database
            continue
    raise StateError(f"the ledger in {folder} changes too fast to be read", "try again")


def _totals(folder: Path) -> dict[tuple[int, Origin, str], list[float]]:
    tally, position = Tally(), Position()
    if (folder / DATABASE).exists():
        with closing(sqlite3.connect(f"{(folder / DATABASE).as_uri()}?mode=ro", uri=True)) as db:
            _check_version(db)
            db.execute("BEGIN")  # all of the following is about one moment
            if db.execute("PRAGMA user_version").fetchone()[0]:
                position = _position(db)
                tally.running = _running(db)
                rows = db.execute("SELECT key, function, deployment, region FROM origins")
                tally.origins = {key: Origin(*rest) for key, *rest in rows}
                for hour, origin, provider, *sums in db.execute("SELECT * FROM hours"):
                    tally.sums[hour, origin, provider] = sums
    for records, _ in journal.read(folder / "journal", position):
        tally.take(records)
    unknown = Origin("?", "", "")
    return {
        (hour, tally.origins.get(origin, unknown), provider): sums
        for (hour, origin, provider), sums in tally.sums.items()
    }


def _row(row: Closed) -> tuple[object, ...]:
    cpu_ms, memory_mb = row.cpu_ns / 1e6, row.memory_kib / 1024
    return (row.id, row.origin, started_ms(row.id), *row[2:8], cpu_ms, memory_mb, *row[10:])


def _check_version(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        message = f"the ledger was written by a newer Lampyr (version {version}, this one knows {VERSION})"
        raise StateError(message, "update Lampyr, or name another state directory with --state-dir")


def _position(db: sqlite3.Connection) -> Position:
    return Position(*db.execute("SELECT segment, place FROM position").fetchone())


def _running(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT id, origin FROM rows WHERE outcome = 'running'").fetchall())


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
