"""A disk that is full: what was durable stays, what fits nowhere is told, and all goes on when there is room again."""

from __future__ import annotations

import ctypes
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from serving import Server, until, write

from lampyr.ledger import journal, records, store
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import Closed, Origin
from lampyr.ledger.store import Store

HOUR_MS = 3_600_000
MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of so many MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=%dm" % request.param) != 0:
        pytest.skip(f"no tmpfs can be mounted: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(bytes(folder), 2)


def fill(disk: Path) -> Path:
    """Until nothing more fits."""
    filler = disk / "filler"
    with open(filler, "ab", buffering=0) as file:
        for piece in (MIB, 4096, 1):
            try:
                while file.write(bytes(piece)) == piece:
                    pass
            except OSError:
                continue
    return filler


def row(number: int, key: int) -> bytes:
    figures = (1.5, 0.5, 10.0, 4_000_000, 2048, 0.005, 3, 7)
    return records.closed(Closed(f"{500_000 * HOUR_MS:011x}{number:013x}", key, 200, False, "ok", *figures))


@pytest.mark.parametrize("small_disk", [3], indirect=True)
def test_rows_wait_in_the_journal_while_the_database_has_no_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    ledger = Journal(small_disk / "journal", told.append, 256 * 1024)
    key = ledger.origin(Origin("/a", "d", ""))
    with closing(Store(small_disk)) as keeper:
        for number in range(100):
            ledger.write(row(number, key))
        keeper.absorb(1000)
        filler = fill(small_disk)
        written = 100
        while not told:  # until this segment is full, and there is no other
            ledger.write(row(written, key))
            written += 1
        written -= 1
        with pytest.raises(sqlite3.OperationalError, match="full"):
            for _ in range(10):
                keeper.absorb(10_000)
    assert len(told) == 1 and "No space left" in told[0] and "hint: free some space" in told[0]
    assert store.totals(small_disk, "function").groups["/a"][0] == written
    filler.unlink()
    monkeypatch.setattr(journal, "RETRY_S", 0.0)
    ledger._retry_s = 0.0
    ledger.write(row(1_000_000, key))
    assert "the ledger can be written again; 1 records are lost" in told[1]
    with closing(Store(small_disk)) as keeper:
        while keeper.absorb(10_000):
            pass
    assert store.totals(small_disk, "function").groups["/a"][0] == written + 1
    with closing(sqlite3.connect(small_disk / store.DATABASE)) as db:
        assert db.execute("SELECT count(*), count(DISTINCT id) FROM rows").fetchone() == (written + 1, written + 1)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_a_server_goes_on_serving(small_disk: Path, tmp_path: Path) -> None:
    """Its budgets too: their numbers were given their place when there was room."""
    route = 'rate_limit = "none"\nbudget = "150 invocations/month"\n\ndef GET():\n    return "here"\n'
    write(tmp_path / "project", {"app/a/route.py": route})
    server = Server(tmp_path / "project", "start", "--state-dir", str(small_disk / "state"))
    ledger = small_disk / "state/ledger"
    try:
        assert [server.get("/a").status for _ in range(50)] == [200] * 50
        filler = fill(small_disk)
        assert [server.get("/a").status for _ in range(120)] == [200] * 100 + [429] * 20
        filler.unlink()
        last = server.get("/a").headers["x-lampyr-id"]

        def stored() -> bool:
            with closing(sqlite3.connect(f"file:{ledger}/ledger.db?mode=ro", uri=True)) as db:
                return bool(db.execute("SELECT 1 FROM rows WHERE id = ?", (last,)).fetchone())

        until(stored, "the last row", 30, server.lines[-20:])
    finally:
        server.stop()
    figures = store.totals(ledger, "function").groups["/a"]
    assert (figures[0], figures[2]) == (150, 21)
