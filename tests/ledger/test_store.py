"""The database of the ledger: each row once, however often and wherever whoever keeps it is killed."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from lampyr.errors import StateError
from lampyr.ledger import records, store
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import Amended, Closed, Opened, Origin
from lampyr.ledger.store import Store
from lampyr.ledger.usage import report

HOUR = 3600_000
NOON_MS = 500_000 * HOUR


def id_at(number: int, ms: int = NOON_MS) -> str:
    return f"{ms:011x}{number:013x}"


def row(number: int, origin: int, outcome: str = "ok", ms: int = NOON_MS) -> Closed:
    return Closed(id_at(number, ms), origin, 200, number == 0, outcome, 1.5, 0.5, 10.0, 4_000_000, 2048, 0.005, 3, 7)


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
        "started_ms": NOON_MS,
        "status": 200,
        "cold": 1,
        "queue_ms": 1.5,
        "init_ms": 0.5,
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
    before = report(store.totals(tmp_path), "function")
    total = before["total"]
    assert (total["invocations"], total["refused"], total["errors"], total["cold_starts"]) == (180, 20, 20, 1)
    assert (total["billed_ms"], total["cpu_ms"], total["gb_s"]) == (1800.0, 720.0, 0.9)
    assert [group["function"] for group in before["groups"]] == ["/a", "/b"]
    with closing(Store(tmp_path)) as keeper:
        while keeper.absorb(most_rows):
            assert report(store.totals(tmp_path), "function") == before
    assert len(report(store.totals(tmp_path), "day")["groups"]) == 9
    assert report(store.totals(tmp_path), "provider")["groups"] == [{"provider": None, **total}]
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
        assert report(store.totals(tmp_path), "function")["total"]["errors"] == 2
        keeper.absorb(1000)
    assert rows(tmp_path) == {id_at(0): "interrupted", id_at(1): "ok", id_at(2): "ok", id_at(3): "interrupted"}
    total = report(store.totals(tmp_path), "function")["total"]
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
        assert report(store.totals(tmp_path), "function")["total"]["invocations"] == written
    with closing(Store(tmp_path)) as last:
        while last.absorb(1000):
            pass
    assert set(rows(tmp_path)) == {id_at(number) for number in range(written)}
    assert report(store.totals(tmp_path), "function")["total"]["invocations"] == written


def test_old_rows_go_and_their_sums_stay(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    for number in range(10):
        journal.write(records.closed(row(number, key, ms=NOON_MS + number * HOUR)))
    with closing(Store(tmp_path)) as keeper:
        keeper.absorb(1000)
        before = store.totals(tmp_path)
        keep_from_s = (NOON_MS + 4 * HOUR) / 1000 + store.KEEP_DAYS * 86400
        assert keeper.forget(keep_from_s) == 4 and keeper.forget(keep_from_s) == 0
    assert set(rows(tmp_path)) == {id_at(number, NOON_MS + number * HOUR) for number in range(4, 10)}
    assert store.totals(tmp_path) == before


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / store.DATABASE)) as db:
        db.execute("PRAGMA user_version = 99")
    for read in (lambda: store.totals(tmp_path), lambda: Store(tmp_path)):
        with pytest.raises(StateError, match="newer Lampyr"):
            read()


def test_no_ledger_is_an_empty_one(tmp_path: Path) -> None:
    found = report(store.totals(tmp_path / "ledger"), "function")
    assert found["groups"] == [] and set(found["total"].values()) == {0}
