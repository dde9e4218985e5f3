"""The shape of the ledger's database, as the steps that lead to it: a new database goes through all of them.

A step is never edited once it was released: tests/ledger/databases has a file of every version before this one.
"""

from __future__ import annotations

import sqlite3

from lampyr.errors import StateError

_SUMS_1 = (
    *("invocations", "errors", "refused", "cold_starts", "billed_ms", "cpu_ms", "gb_s", "bytes_in", "bytes_out"),
    *("tokens_in", "tokens_out", "cost_usd"),
)
_SUMS_2 = (*_SUMS_1, "calls")
_SLOT_SUMS = tuple(name for name in _SUMS_1 if not name.startswith("bytes"))


def _columns(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} REAL DEFAULT 0" for name in names)


_STEP_1 = (
    "CREATE TABLE origins (key INTEGER PRIMARY KEY, function TEXT, deployment TEXT, region TEXT)",
    """
    CREATE TABLE rows (
        id TEXT PRIMARY KEY, origin INTEGER, started_ms INTEGER, status INTEGER DEFAULT 0, cold INTEGER DEFAULT 0,
        outcome TEXT, queue_ms REAL DEFAULT 0, init_ms REAL DEFAULT 0, duration_ms REAL DEFAULT 0,
        cpu_ms REAL DEFAULT 0, memory_mb REAL DEFAULT 0, gb_s REAL DEFAULT 0,
        bytes_in INTEGER DEFAULT 0, bytes_out INTEGER DEFAULT 0,
        tokens_in INTEGER DEFAULT 0, tokens_out INTEGER DEFAULT 0, cost_usd REAL DEFAULT 0, provider TEXT DEFAULT ''
    ) WITHOUT ROWID
    """,
    "CREATE INDEX running ON rows (id) WHERE outcome = 'running'",
    f"""
    CREATE TABLE hours (
        hour INTEGER, origin INTEGER, provider TEXT, {_columns(_SUMS_1)}, PRIMARY KEY (hour, origin, provider)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), segment INTEGER, place INTEGER)",
    "INSERT INTO position VALUES (1, 0, 0)",
    """
    CREATE VIEW invocations AS
        SELECT id, function, deployment, region, started_ms, status, cold, queue_ms, init_ms, duration_ms, cpu_ms,
            memory_mb, duration_ms AS billed_ms, gb_s, bytes_in, bytes_out, tokens_in, tokens_out, cost_usd, provider,
            outcome
        FROM rows LEFT JOIN origins ON origins.key = rows.origin
    """,
)

# Sums by outcome and model too, and by day; calls to providers; a position for each journal. How what was added up
# before had ended is not known any more: its outcome is "". And counts that only grow (ever.py), which begin at 0.
_STEP_2 = (
    "ALTER TABLE rows ADD COLUMN model TEXT DEFAULT ''",
    "ALTER TABLE hours RENAME TO hours_1",
    f"""
    CREATE TABLE hours (
        hour INTEGER, origin INTEGER, outcome TEXT, provider TEXT, model TEXT, {_columns(_SUMS_2)},
        PRIMARY KEY (hour, origin, outcome, provider, model)
    ) WITHOUT ROWID
    """,
    f"INSERT INTO hours SELECT hour, origin, '', provider, '', {', '.join(_SUMS_1)}, 0 FROM hours_1",
    "DROP TABLE hours_1",
    f"""
    CREATE TABLE days (
        day INTEGER, origin INTEGER, outcome TEXT, provider TEXT, model TEXT, {_columns(_SUMS_2)},
        PRIMARY KEY (day, origin, outcome, provider, model)
    ) WITHOUT ROWID
    """,
    f"""
    INSERT INTO days SELECT hour / 24, origin, outcome, provider, model, {", ".join(f"SUM({one})" for one in _SUMS_2)}
        FROM hours GROUP BY 1, 2, 3, 4, 5
    """,
    """
    CREATE TABLE calls (
        id TEXT PRIMARY KEY, invocation TEXT, function TEXT, provider TEXT, model TEXT,
        tokens_in INTEGER, tokens_out INTEGER, cost_usd REAL, guessed INTEGER, settled INTEGER
    ) WITHOUT ROWID
    """,
    "CREATE INDEX unsettled ON calls (id) WHERE settled = 0",
    """
    CREATE TABLE answers (
        function TEXT, outcome TEXT, status INTEGER, count INTEGER, PRIMARY KEY (function, outcome, status)
    ) WITHOUT ROWID
    """,
    f"""
    CREATE TABLE sums (
        function TEXT, provider TEXT, {_columns(_SUMS_2)}, PRIMARY KEY (function, provider)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE times (
        function TEXT, what TEXT, bucket INTEGER, count INTEGER, total_ms REAL, PRIMARY KEY (function, what, bucket)
    ) WITHOUT ROWID
    """,
    "ALTER TABLE position RENAME TO position_1",
    "CREATE TABLE position (journal TEXT PRIMARY KEY, segment INTEGER, place INTEGER) WITHOUT ROWID",
    "INSERT INTO position SELECT 'journal', segment, place FROM position_1",
    "INSERT INTO position VALUES ('calls', 0, 0)",
    "DROP TABLE position_1",
    "DROP VIEW invocations",
    """
    CREATE VIEW invocations AS
        SELECT id, function, deployment, region, started_ms, status, cold, queue_ms, init_ms, duration_ms, cpu_ms,
            memory_mb, duration_ms AS billed_ms, gb_s, bytes_in, bytes_out, tokens_in, tokens_out, cost_usd, provider,
            model, outcome
        FROM rows LEFT JOIN origins ON origins.key = rows.origin
    """,
)

# When the first byte of a stream left, and what charts are made of: sums and spreads by 1, 5 and 60 minutes.
_STEP_3 = (
    "ALTER TABLE rows ADD COLUMN first_byte_ms REAL",
    f"""
    CREATE TABLE slots (
        step INTEGER, slot INTEGER, function TEXT, {_columns(_SLOT_SUMS)}, PRIMARY KEY (step, slot, function)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE spreads (
        step INTEGER, slot INTEGER, what INTEGER, function TEXT, bucket INTEGER, count INTEGER,
        PRIMARY KEY (step, slot, what, function, bucket)
    ) WITHOUT ROWID
    """,
    f"""
    INSERT INTO slots SELECT 60, hour, ifnull(function, '?'), {", ".join(f"SUM({one})" for one in _SLOT_SUMS)}
        FROM hours LEFT JOIN origins ON origins.key = origin GROUP BY 2, 3
    """,
    "DROP VIEW invocations",
    """
    CREATE VIEW invocations AS
        SELECT id, function, deployment, region, started_ms, status, cold, queue_ms, init_ms,
            coalesce(first_byte_ms, duration_ms) AS first_byte_ms, duration_ms, cpu_ms, memory_mb,
            duration_ms AS billed_ms, gb_s, bytes_in, bytes_out, tokens_in, tokens_out, cost_usd, provider, model,
            outcome
        FROM rows LEFT JOIN origins ON origins.key = rows.origin
    """,
)

# Calls to providers that are under way: what they count as where the broker does not live to say how they ended.
_STEP_4 = (
    """
    CREATE TABLE asked (
        id TEXT PRIMARY KEY, invocation TEXT, function TEXT, provider TEXT, model TEXT,
        tokens_in INTEGER, tokens_out INTEGER, cost_usd REAL, guessed INTEGER
    ) WITHOUT ROWID
    """,
)

# How many instances functions had, by 1, 5 and 60 minutes.
_STEP_5 = (
    """
    CREATE TABLE instances (
        step INTEGER, slot INTEGER, function TEXT, most INTEGER, PRIMARY KEY (step, slot, function)
    ) WITHOUT ROWID
    """,
)

# The time of an invocation as people read it, under the name that SPEC 6 has.
_STEP_6 = (
    "DROP VIEW invocations",
    """
    CREATE VIEW invocations AS
        SELECT id, function, deployment, region, strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch')
            AS started_at, started_ms, status, cold, queue_ms, init_ms,
            coalesce(first_byte_ms, duration_ms) AS first_byte_ms, duration_ms, cpu_ms, memory_mb,
            duration_ms AS billed_ms, gb_s, bytes_in, bytes_out, tokens_in, tokens_out, cost_usd, provider, model,
            outcome
        FROM rows LEFT JOIN origins ON origins.key = rows.origin
    """,
)

_STEPS = (_STEP_1, _STEP_2, _STEP_3, _STEP_4, _STEP_5, _STEP_6)
VERSION = len(_STEPS)


def version(db: sqlite3.Connection) -> int:
    """Of what shape the database is; 0 is an empty one. Raises StateError where a newer Lampyr has written it."""
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        message = f"the ledger was written by a newer Lampyr (version {found}, this one knows {VERSION})"
        raise StateError(message, "update Lampyr, or name another state directory with --state-dir")
    return found


def bring_up(db: sqlite3.Connection) -> None:
    """Take the steps that the database has not taken yet: all of them or none. Raises StateError and sqlite3.Error."""
    if version(db) == VERSION:
        return
    # Pages of rows that are removed can only be given back where this was said before the first table.
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in _STEPS[version(db) :]:
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
