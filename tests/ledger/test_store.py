"""The database of the ledger: each row once, however often and wherever whoever keeps it is killed."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lampyr.errors import StateError
from lampyr.ledger import history, records, schema, store
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import Amended, Asked, Closed, Opened, Origin, Spent
from lampyr.ledger.store import Store
from lampyr.ledger.usage import BY
from lampyr.ledger.usage import report as shown

DATABASES = Path(__file__).parent / "databases"
HOUR = 3600_000
NOON_MS = 500_000 * HOUR


def id_at(number: int, ms: int = NOON_MS) -> str:
    return f"{ms:011x}{number:013x}"


def row(number: int, origin: int, outcome: str = "ok", ms: int = NOON_MS) -> Closed:
    return Closed(id_at(number, ms), origin, 200, number == 0, outcome, 1.5, 0.5, 10.0, 4_000_000, 2048, 0.005, 3, 7)


def report(folder: Path, by: str, since_hour: int = 0) -> dict[str, Any]:
    return shown(store.totals(folder, by, since_hour).groups, by)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", print, 4096)


def rows(folder: Path) -> dict[str, str]:
    """Every row that is there, with its outcome."""
    with closing(sqlite3.connect(folder / store.DATABASE)) as db:
        found = db.execute("SELECT id, outcome FROM invocations").fetchall()
    assert len(dict(found)) == len(found)
    return dict(found)


def test_a_row_has_everything(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d1", ""))
    journal.write(records.opened(Opened(id_at(0), key)))
    journal.write(records.closed(row(0, key)))
    journal.write(records.amended(Amended(id_at(0), key, 1_000_000)))
    with closing(Store(tmp_path)) as keeper:
        assert keeper.absorb(1000) == 5
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        db.row_factory = sqlite3.Row
        (found,) = map(dict, db.execute("SELECT * FROM invocations"))
    assert found == {
        "id": id_at(0),
        "function": "/a",
        "deployment": "d1",
        "region": "",
        "started_at": f"{datetime.fromtimestamp(NOON_MS / 1000, UTC):%Y-%m-%dT%H:%M:%S}.000Z",
        "started_ms": NOON_MS,
        "status": 200,
        "cold": 1,
        "queue_ms": 1.5,
        "init_ms": 0.5,
        "first_byte_ms": 10.0,
        "duration_ms": 10.0,
        "cpu_ms": 5.0,
        "memory_mb": 2.0,
        "billed_ms": 10.0,
        "gb_s": 0.005,
        "bytes_in": 3,
        "bytes_out": 7,
        "tokens_in": 0,
        "tokens_out": 0,
        "cost_usd": 0.0,
        "provider": "",
        "model": "",
        "outcome": "ok",
    }


@pytest.mark.parametrize("most_rows", [1, 7, 10_000])
def test_sums_are_the_same_however_far_the_database_has_come(tmp_path: Path, journal: Journal, most_rows: int) -> None:
    keys = [journal.origin(Origin(route, "d", "")) for route in ("/a", "/b")]
    for number in range(200):
        key = keys[number % 2]
        journal.write(records.opened(Opened(id_at(number, NOON_MS + number * HOUR), key)))
        outcome = "rate_limited" if number % 10 == 9 else "error" if number % 10 == 8 else "ok"
        journal.write(records.closed(row(number, key, outcome, NOON_MS + number * HOUR)))
    before = report(tmp_path, "function")
    total = before["total"]
    assert (total["invocations"], total["refused"], total["errors"], total["cold_starts"]) == (180, 20, 20, 1)
    assert (total["billed_ms"], total["cpu_ms"], total["gb_s"]) == (1800.0, 720.0, 0.9)
    assert [group["function"] for group in before["groups"]] == ["/a", "/b"]
    with closing(Store(tmp_path)) as keeper:
        while keeper.absorb(most_rows):
            assert report(tmp_path, "function") == before
    assert len(report(tmp_path, "day")["groups"]) == 9
    assert report(tmp_path, "provider")["groups"] == [{"provider": None, **total}]
    assert len(rows(tmp_path)) == 200


def test_what_is_open_at_a_start_is_closed_as_interrupted(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    for number in range(3):
        journal.write(records.opened(Opened(id_at(number), key)))
    journal.write(records.closed(row(1, key)))
    with closing(Store(tmp_path)) as keeper:
        keeper.absorb(1000)
        assert rows(tmp_path) == {id_at(0): "running", id_at(1): "ok", id_at(2): "running"}
        journal.write(records.closed(row(2, key)))
        journal.write(records.opened(Opened(id_at(3), key)))
        keeper.absorb(1000)
        Journal(tmp_path / "journal", print)
        assert report(tmp_path, "function")["total"]["errors"] == 2
        keeper.absorb(1000)
    assert rows(tmp_path) == {id_at(0): "interrupted", id_at(1): "ok", id_at(2): "ok", id_at(3): "interrupted"}
    total = report(tmp_path, "function")["total"]
    assert (total["invocations"], total["errors"]) == (4, 2)


KEEPER = """
import sys
from pathlib import Path
from lampyr.ledger.store import Store
keeper = Store(Path(sys.argv[1]))
while True:
    keeper.absorb(50)
"""


def test_no_row_is_lost_or_doubled_by_killing_who_keeps_them(tmp_path: Path, journal: Journal) -> None:
    """Killed at 30 random moments while rows keep coming."""
    key, chance, written = journal.origin(Origin("/a", "d", "")), random.Random(1), 0
    for _ in range(30):
        keeper = subprocess.Popen([sys.executable, "-c", KEEPER, str(tmp_path)])
        until = time.monotonic() + chance.uniform(0.05, 0.3)
        while time.monotonic() < until:
            journal.write(records.opened(Opened(id_at(written), key)))
            journal.write(records.closed(row(written, key)))
            written += 1
            time.sleep(0.0002)
        keeper.send_signal(signal.SIGKILL)
        keeper.wait()
        assert report(tmp_path, "function")["total"]["invocations"] == written
    with closing(Store(tmp_path)) as last:
        while last.absorb(1000):
            pass
    assert set(rows(tmp_path)) == {id_at(number) for number in range(written)}
    assert report(tmp_path, "function")["total"]["invocations"] == written


def test_old_rows_go_and_their_sums_stay(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    for number in range(10):
        journal.write(records.closed(row(number, key, ms=NOON_MS + number * HOUR)))
    with closing(Store(tmp_path)) as keeper:
        keeper.absorb(1000)
        before = store.totals(tmp_path, "hour")
        keep_from_s = (NOON_MS + 4 * HOUR) / 1000 + 30 * 86400
        assert keeper.forget(keep_from_s, 30) == 4 and keeper.forget(keep_from_s, 30) == 0
    assert set(rows(tmp_path)) == {id_at(number, NOON_MS + number * HOUR) for number in range(4, 10)}
    assert store.totals(tmp_path, "hour") == before


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        db.execute("PRAGMA user_version = 99")
    for read in (lambda: store.totals(tmp_path, "day"), lambda: Store(tmp_path)):
        with pytest.raises(StateError, match="newer Lampyr"):
            read()


def test_no_ledger_is_an_empty_one(tmp_path: Path) -> None:
    found = report(tmp_path / "ledger", "function")
    assert found["groups"] == [] and set(found["total"].values()) == {0}


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_database_of_every_earlier_version_is_brought_up(tmp_path: Path, version: int) -> None:
    """Nothing of it is lost, and a new row finds its place."""
    shutil.copy(DATABASES / f"version-{version}.db", tmp_path / store.DATABASE)
    with pytest.raises(StateError, match="earlier Lampyr"):
        store.totals(tmp_path, "function")
    with closing(Store(tmp_path)) as keeper:
        journal = Journal(tmp_path / "journal", print, 4096)
        journal.write(records.closed(row(99, journal.origin(Origin("/b", "d2", "")))))
        assert keeper.position.segment == 2 and keeper.absorb(1000)
    found = report(tmp_path, "function")
    assert {one["function"]: one["invocations"] for one in found["groups"]} == {"/a": 16, "/b": 17}
    total = found["total"]
    assert (total["invocations"], total["errors"], total["refused"], total["billed_ms"]) == (33, 16, 8, 320.0)
    assert report(tmp_path, "day")["total"] == report(tmp_path, "outcome")["total"] == total
    known = rows(tmp_path)
    assert len(known) == 41 and known[id_at(39, NOON_MS + 39 * HOUR)] == "interrupted"


def test_a_new_database_is_as_one_that_was_brought_up(tmp_path: Path) -> None:
    def shape(folder: Path) -> list[str]:
        Store(folder).close()
        with closing(sqlite3.connect(folder / store.DATABASE)) as db:
            assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
            found = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return [" ".join(f"{name} {sql}".replace("IF NOT EXISTS ", "").split()) for name, sql in found]

    (tmp_path / "old").mkdir()
    shutil.copy(DATABASES / "version-1.db", tmp_path / "old" / store.DATABASE)
    assert shape(tmp_path / "old") == shape(tmp_path / "new")


def test_a_database_whose_keeper_was_killed_in_the_middle_of_a_step_can_be_read(tmp_path: Path) -> None:
    """Before it is in WAL mode, what is half written has to be taken back by whoever opens it next."""
    shutil.copy(DATABASES / f"version-{schema.VERSION - 1}.db", tmp_path / store.DATABASE)
    killed = """if True:
        import os, sqlite3, sys
        db = sqlite3.connect(sys.argv[1], isolation_level=None)
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE half (x)")
        for _ in range(500):
            db.execute("INSERT INTO half VALUES (randomblob(500))")
        os._exit(9)
    """
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / store.DATABASE)], check=False)
    assert (tmp_path / f"{store.DATABASE}-journal").exists()
    with history.reading(tmp_path) as db:
        assert db is None  # of an earlier version: the next start brings it up
    with closing(Store(tmp_path)) as keeper:
        keeper.absorb(1000)
    assert report(tmp_path, "function")["total"]["invocations"] == 31


def test_a_damaged_database_is_told_of_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / store.DATABASE).write_bytes(b"not a database " * 100)
    with pytest.raises(StateError, match="cannot be read: file is not a database") as caught:
        report(tmp_path, "function")
    assert "moved away" in caught.value.hint
    (tmp_path / store.DATABASE).rename(tmp_path / "damaged")
    Store(tmp_path).close()
    assert report(tmp_path, "function")["groups"] == []


def test_bringing_it_up_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DATABASES / "version-1.db", tmp_path / store.DATABASE)
    before = (tmp_path / store.DATABASE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_STEPS", (*schema._STEPS[:-1], (*schema._STEPS[-1], "SELECT nonsense")))
        with pytest.raises(sqlite3.OperationalError):
            Store(tmp_path)
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM rows").fetchone() == (40,)
    assert len((tmp_path / store.DATABASE).read_bytes()) == len(before)
    Store(tmp_path).close()


def call(number: int, invocation: str, model: str = "small", provider: str = "openai") -> Spent:
    return Spent(id_at(number), invocation, "/a", provider, model, 100, 10, 0.25, False)


@pytest.mark.parametrize("most_rows", [1, 10_000])
def test_what_is_spent_at_providers(tmp_path: Path, journal: Journal, most_rows: int) -> None:
    """In the row, and by the provider and model that were called; early, late, of nobody, and not twice."""
    key, calls = journal.origin(Origin("/a", "d", "")), Journal(tmp_path / "calls", print, 4096)
    for number in range(4):
        journal.write(records.opened(Opened(id_at(number), key)))
    for at, (number, model) in enumerate(((0, "small"), (0, "large"), (1, "small"))):
        calls.write(records.spent(call(at, id_at(number), model)))
    for number in range(2):
        journal.write(records.closed(row(number, key)))
    calls.write(records.spent(call(500, "", "odd", "other")))
    before = {by: report(tmp_path, by) for by in BY}
    with closing(Store(tmp_path)) as keeper:
        while keeper.absorb(most_rows):
            assert {by: report(tmp_path, by) for by in BY} == before
        keeper.absorb(most_rows)
    with closing(Store(tmp_path)) as keeper:
        calls.write(records.spent(call(501, id_at(2))))  # open yet
        keeper.absorb(1000)
    assert report(tmp_path, "model") == before["model"]
    with closing(Store(tmp_path)) as keeper:
        for number in (2, 3):
            journal.write(records.closed(row(number, key)))
        keeper.absorb(1000)
        calls.write(records.spent(call(502, id_at(3), "late")))
        late = report(tmp_path, "model")
        keeper.absorb(1000)
    assert report(tmp_path, "model") == late
    by_model = {one["model"]: one for one in late["groups"]}
    assert {model: (one["invocations"], one["calls"], one["tokens_in"]) for model, one in by_model.items()} == {
        None: (1, 0, 0),
        "small": (3, 3, 300),
        "large": (0, 1, 100),
        "odd": (0, 1, 100),
        "late": (0, 1, 100),
    }
    assert (late["total"]["cost_usd"], late["total"]["tokens_out"], late["total"]["calls"]) == (1.5, 60, 6)
    assert {one["provider"] for one in report(tmp_path, "provider")["groups"]} == {None, "openai", "other"}
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        found = db.execute("SELECT tokens_in, cost_usd, provider, model FROM invocations ORDER BY id").fetchall()
        assert found[:2] == [(200, 0.5, "openai", "small"), (100, 0.25, "openai", "small")]
        assert found[3] == (100, 0.25, "openai", "late")
        assert db.execute("SELECT count(*), sum(settled) FROM calls").fetchone() == (6, 6)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_call_that_was_cut_off_with_its_broker_is_there_once(tmp_path: Path, journal: Journal, keeps: bool) -> None:
    """From the next broker on, with what it may have cost; also where the database has passed its beginning."""
    key, calls = journal.origin(Origin("/a", "d", "")), Journal(tmp_path / "calls", print, 4096)
    journal.write(records.opened(Opened(id_at(0), key)))

    def absorb() -> None:
        if keeps:
            with closing(Store(tmp_path)) as keeper:
                keeper.absorb(1000)

    first, cut = call(500, id_at(0)), call(501, id_at(0), "large")
    for one in (first._replace(tokens_in=9999, guessed=True), cut._replace(provider="away"), cut):
        calls.write(records.asked(Asked(one)))
    calls.write(records.spent(first))
    absorb()
    journal.write(records.closed(row(0, key, "error")))
    absorb()
    assert [one["provider"] for one in report(tmp_path, "provider")["groups"]] == ["openai"]
    assert report(tmp_path, "model")["total"]["calls"] == 1, "it may yet end as others do"
    for _ in range(2):
        Journal(tmp_path / "calls", print, 4096)  # a broker begins
        absorb()
        found = {one["model"]: (one["calls"], one["tokens_in"]) for one in report(tmp_path, "model")["groups"]}
        assert found == {"small": (1, 100), "large": (1, 100)}
    if keeps:
        with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
            assert db.execute("SELECT count(*) FROM asked").fetchone() == (0,)
            assert db.execute("SELECT tokens_in FROM rows").fetchone() == (200,)


@pytest.mark.parametrize("closed", ["before the call is taken", "after it"])
def test_no_function_spends_for_another(tmp_path: Path, journal: Journal, closed: str) -> None:
    """Which invocation makes a call its function says, and may name one of another function's."""
    key, calls = journal.origin(Origin("/b", "d", "")), Journal(tmp_path / "calls", print, 4096)
    journal.write(records.opened(Opened(id_at(0), key)))
    if closed == "before the call is taken":
        journal.write(records.closed(row(0, key)))
    with closing(Store(tmp_path)) as keeper:
        keeper.absorb(1000)
        calls.write(records.spent(call(7, id_at(0))))  # of /a
        keeper.absorb(1000)
        if closed == "after it":
            journal.write(records.closed(row(0, key)))
            keeper.absorb(1000)
    by_function = {one["function"]: one for one in report(tmp_path, "function")["groups"]}
    assert {name: (one["invocations"], one["calls"]) for name, one in by_function.items()} == {
        "/a": (0, 1),
        "/b": (1, 0),
    }
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        assert db.execute("SELECT tokens_in, provider FROM invocations").fetchall() == [(0, "")]


@pytest.mark.parametrize("most_rows", [1, 10_000])
def test_models_of_any_name_are_bounded(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, most_rows: int
) -> None:
    monkeypatch.setattr(store, "MOST_MODELS", 5)
    key, calls = journal.origin(Origin("/a", "d", "")), Journal(tmp_path / "calls", print, 4096)
    for number in range(20):
        journal.write(records.closed(row(number, key)))
        calls.write(records.spent(call(100 + number, id_at(number), f"m{number % 10}")))
        if number == 12:
            with closing(Store(tmp_path)) as keeper:
                keeper.absorb(10_000)
    before = report(tmp_path, "model")
    with closing(Store(tmp_path)) as keeper:
        while keeper.absorb(most_rows):
            pass
    assert report(tmp_path, "model") == before
    assert {one["model"]: one["calls"] for one in before["groups"]} == {
        **{f"m{number}": 2 for number in range(5)},
        store.OTHER_MODELS: 10,
    }


def test_since_counts_from_an_hour_on_also_where_the_hours_are_forgotten(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    for number in range(96):
        journal.write(records.closed(row(number, key, ms=NOON_MS + number * HOUR)))
    first = NOON_MS // HOUR
    whole_day = first + -first % 24 + 24
    expected = {since: first + 96 - since for since in (first, first + 5, whole_day, first + 95, first + 96)}
    for state in ("in the journal", "in the database"):
        if state == "in the database":
            with closing(Store(tmp_path)) as keeper:
                keeper.absorb(1000)
        for since, count in expected.items():
            for by in BY:
                assert report(tmp_path, by, since)["total"]["invocations"] == count, (state, since - first, by)
        assert store.totals(tmp_path, "model", first + 5).first_hour == first + 5
    with closing(Store(tmp_path)) as keeper:
        keeper.forget((first + 48 + store.KEEP_HOURS_DAYS * 24) * 3600.0, 30)
    assert report(tmp_path, "function")["total"]["invocations"] == 96
    # Where the hours are gone, from the beginning of the day.
    assert report(tmp_path, "function", whole_day - 12)["total"]["invocations"] == first + 96 - (whole_day - 24)


def test_pages_of_forgotten_rows_go_back_to_the_disk(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    for number in range(20_000):
        journal.write(records.closed(row(number, key)))
    with closing(Store(tmp_path)) as keeper:
        while keeper.absorb(10_000):
            pass
        keeper._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = (tmp_path / store.DATABASE).stat().st_size
        while keeper.forget(NOON_MS / 1000 + 60 * 86400, 30):
            pass
        keeper._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / store.DATABASE).stat().st_size < before / 10


def test_the_usual_questions_never_look_at_rows(tmp_path: Path) -> None:
    """They are answered where the rows are gone. With 10 million it was measured (docs/metering.md)."""
    with closing(Store(tmp_path)) as keeper:
        keys = [Origin(f"/api/{number}", "d", "") for number in range(20)]
        keeper._db.executemany("INSERT INTO origins VALUES (?, ?, ?, ?)", [(one.key, *one) for one in keys])
        keeper._db.execute("BEGIN")
        keeper._db.executemany(
            "INSERT INTO rows (id, origin, started_ms, outcome, duration_ms) VALUES (?, ?, ?, 'ok', 10)",
            ((id_at(n, NOON_MS + n * 27_000), keys[n % 20].key, NOON_MS + n * 27_000) for n in range(40_000)),
        )
        keeper._db.execute("COMMIT")
        for table, length_ms in (("hours", HOUR), ("days", 24 * HOUR)):
            keeper._db.execute(
                f"""
                INSERT INTO {table} ({table[:-1]}, origin, outcome, provider, model, invocations, billed_ms)
                    SELECT started_ms / {length_ms}, origin, outcome, '', '', count(*), sum(duration_ms)
                    FROM rows GROUP BY 1, 2
                """
            )
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        db.execute("DELETE FROM rows")
        db.commit()
    for by in BY:
        for since_hour in (0, NOON_MS // HOUR + 101):
            assert report(tmp_path, by, since_hour)["total"]["invocations"] >= 26_000
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        for by in BY:
            _, asked, since = store._question(db, by, 5)
            plan = " ".join(str(step) for step in db.execute("EXPLAIN QUERY PLAN " + asked, (since,)))
            assert "rows" not in plan and "PRIMARY KEY" in plan, plan
