"""A clock that jumps: ids stay unique, rows find their hour, and none is forgotten for it."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path

import pytest

from lampyr.control.bookkeeping import Bookkeeper
from lampyr.gateway.ids import Ids
from lampyr.ledger import records, store
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import Closed, Opened, Origin
from lampyr.ledger.store import Store

YEAR_S = 366 * 86400
FIGURES = (1.5, 0.5, 10.0, 4_000_000, 2048, 0.005, 3, 7)


def test_every_row_is_there_whatever_the_clock_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, ids, chance = Journal(tmp_path / "journal", print, 65536), Ids(), random.Random(7)
    key, now_s, seen = journal.origin(Origin("/a", "d", "")), [time.time()], set()
    monkeypatch.setattr(time, "time", lambda: now_s[0])
    for _ in range(3000):
        now_s[0] += chance.choice((0, 0, 0.001, 3600, -3600, YEAR_S, -YEAR_S))
        id = ids.new()
        seen.add(id)
        journal.write(records.opened(Opened(id, key)))
        journal.write(records.closed(Closed(id, key, 200, False, "ok", *FIGURES)))
    assert len(seen) == 3000
    with closing(Store(tmp_path)) as keeper:
        while keeper.absorb(500):
            pass
    for by in ("function", "day", "hour"):
        totals = store.totals(tmp_path, by).groups.values()
        assert (sum(one[0] for one in totals), sum(one[4] for one in totals)) == (3000, 30_000.0)


def test_a_clock_that_jumps_ahead_takes_no_rows_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, ids, keeps = Journal(tmp_path / "journal", print, 65536), Ids(), Bookkeeper(tmp_path, 30)
    key = journal.origin(Origin("/a", "d", ""))
    for _ in range(10):
        journal.write(records.closed(Closed(ids.new(), key, 200, False, "ok", *FIGURES)))
    ahead_s = time.time() + YEAR_S
    monkeypatch.setattr(time, "time", lambda: ahead_s)
    with closing(Store(tmp_path)) as keeper:
        keeper.absorb(1000)
        keeps._forget(keeper, time.monotonic())
        assert keeper._db.execute("SELECT count(*) FROM rows").fetchone() == (10,)
        Bookkeeper(tmp_path, 30)._forget(keeper, time.monotonic())  # of the next start
        assert keeper._db.execute("SELECT count(*) FROM rows").fetchone() == (0,)
