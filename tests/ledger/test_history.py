"""What pages read of the ledger: figures of a time, the same over time, and invocations, newest first."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lampyr.ledger import history, recent, records
from lampyr.ledger.history import WINDOWS, Invocation
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import ERRORS, REFUSED, Amended, Closed, Opened, Origin, Scaled, Spent, Streamed
from lampyr.ledger.store import Store

MINUTE = 60_000
NOW_MS = 29_000_000 * MINUTE + 30_000
ENDS = ("ok", "ok", "ok", "ok", "error", "timeout", "rate_limited")


def id_at(ms: int, number: int) -> str:
    return f"{ms:011x}{number:013x}"


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.node.name)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", print, 1 << 20)


def closed(dice: random.Random, origin: int, ms: int, number: int, outcome: str = "ok") -> Closed:
    cold = dice.random() < 0.2
    times = (dice.uniform(0, 3), 5.0 if cold else 0.0, dice.lognormvariate(3, 1))
    return Closed(id_at(ms, number), origin, 200, cold, outcome, *times, 2_000_000, 1024, 0.01, 3, 7)


def write(journal: Journal, rows: list[Closed]) -> None:
    for row in sorted(rows):
        journal.write(records.opened(Opened(row.id, row.origin)))
        journal.write(records.closed(row))


def take_in(folder: Path, most_rows: int = 4000) -> None:
    with closing(Store(folder)) as keeper:
        while keeper.absorb(most_rows):
            pass


@pytest.fixture
def many(tmp_path: Path, journal: Journal, dice: random.Random) -> list[tuple[str, Closed]]:
    """700 rows of two functions in two deployments, of the last ten days."""
    origins = [
        (name, journal.origin(Origin(name, deployment, ""))) for name in ("/a", "/b") for deployment in ("d1", "d2")
    ]
    rows = []
    for number in range(700):
        name, origin = origins[number % 4]
        ago = dice.choice(
            (dice.randrange(12 * MINUTE), dice.randrange(20 * 60 * MINUTE), dice.randrange(240 * 60 * MINUTE))
        )
        rows.append((name, closed(dice, origin, NOW_MS - ago, number, dice.choice(ENDS))))
    write(journal, [row for _, row in rows])
    return rows


def within(many: list[tuple[str, Closed]], window: str, function: str | None = None) -> Iterator[Closed]:
    """Those that a window has: it begins with a whole step."""
    _, minutes, step = WINDOWS[window]
    begin_ms = ((NOW_MS // MINUTE - minutes) // step + 1) * step * MINUTE
    for name, row in many:
        if int(row.id[:11], 16) >= begin_ms and function in (None, name):
            yield row


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("most_rows", [1, 50, 4000])
def test_figures_are_those_of_the_rows(
    tmp_path: Path, many: list[tuple[str, Closed]], window: str, most_rows: int
) -> None:
    take_in(tmp_path, most_rows)
    with history.reading(tmp_path) as db:
        assert db is not None
        by_function, total = history.figures(db, WINDOWS[window], NOW_MS)
        columns = history.series(db, WINDOWS[window], NOW_MS)
        beats = history.beats(db, WINDOWS[window], NOW_MS)
    for function, figures in ((None, total), *by_function.items()):
        rows = list(within(many, window, function))
        let_in = [row for row in rows if row.outcome not in REFUSED]
        assert figures.sums["invocations"] == len(let_in)
        assert figures.sums["refused"] == len(rows) - len(let_in)
        assert figures.sums["errors"] == sum(row.outcome in ERRORS for row in rows)
        assert figures.sums["cold_starts"] == sum(row.cold for row in let_in)
        assert figures.sums["billed_ms"] == pytest.approx(sum(row.duration_ms for row in let_in))
        times = sorted(row.duration_ms for row in let_in)
        assert figures.duration["p50"] == pytest.approx(times[(len(times) + 1) // 2 - 1], rel=0.046)
        assert figures.init["p99"] == pytest.approx(5.0, rel=0.046)
    assert sum(columns["invocations"]) == total.sums["invocations"]
    assert len({len(column) for column in columns.values()}) == 1
    assert len(columns["time"]) == WINDOWS[window].minutes // WINDOWS[window].step
    for function, figures in by_function.items():
        assert sum(all_ for all_, _ in beats[function]) == figures.sums["invocations"]
        assert sum(bad for _, bad in beats[function]) == figures.sums["errors"]


def test_instances_over_time_are_the_most_of_each_step(tmp_path: Path, journal: Journal) -> None:
    days_ago = NOW_MS - 3 * 24 * 60 * MINUTE
    changes = [(days_ago, "/a", 9), (NOW_MS - 7 * MINUTE, "/a", 2), (NOW_MS - 7 * MINUTE + 5, "/a", 5)]
    changes += [(NOW_MS - 6 * MINUTE, "/a", 4), (NOW_MS - 6 * MINUTE, "/b", 30), (NOW_MS, "/a", 1)]
    for change in changes:
        journal.write(records.scaled(Scaled(*change)))
        take_in(tmp_path)  # each in a transaction of its own
    with history.reading(tmp_path) as db:
        assert db is not None
        found = {name: history.instances(db, window, NOW_MS, "/a") for name, window in WINDOWS.items()}
        columns = {name: history.series(db, window, NOW_MS)["time"] for name, window in WINDOWS.items()}
        assert (history.peak(db, "/a"), history.peak(db, "/b"), history.peak(db, "/c")) == (9, 30, 0)
    assert {name: len(one) for name, one in found.items()} == {name: len(one) for name, one in columns.items()}
    assert found["15m"] == [0] * 7 + [5, 4, 0, 0, 0, 0, 0, 1]
    assert [sum(1 for most in found[name] if most) for name in ("1h", "6h", "24h", "7d")] == [3, 2, 2, 2]
    assert max(found["24h"]) == 5 and max(found["7d"]) == 9


def test_each_point_of_a_chart_has_its_own_percentiles(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    for minute, took_ms in ((0, 10.0), (1, 1000.0)):
        for number in range(10):
            id = id_at(NOW_MS - minute * MINUTE, number)
            row = Closed(id, key, 200, False, "ok", 0.0, 0.0, took_ms, 0, 0, 0.0, 0, 0)
            journal.write(records.closed(row))
    take_in(tmp_path)
    with history.reading(tmp_path) as db:
        assert db is not None
        columns = history.series(db, WINDOWS["15m"], NOW_MS, "/a")
        assert history.series(db, WINDOWS["15m"], NOW_MS, "/b")["p50"] == [None] * 15
        assert history.a_minute(db, "/a", NOW_MS) == 15  # ten, and half of ten
    assert columns["p50"][:-2] == [None] * 13
    assert columns["p50"][-2:] == [pytest.approx(1000, rel=0.046), pytest.approx(10, rel=0.046)]
    assert columns["time"][-1] == NOW_MS // MINUTE * 60


@pytest.mark.parametrize("function", [None, "/a", "/b", "/nowhere"])
@pytest.mark.parametrize("failed", [False, True])
def test_invocations_come_newest_first_page_by_page(
    tmp_path: Path, many: list[tuple[str, Closed]], function: str | None, failed: bool
) -> None:
    """Also when those by five minutes are forgotten."""
    take_in(tmp_path)
    wanted = sorted(
        (row.id for name, row in many if function in (None, name) and (row.outcome in ERRORS or not failed)),
        reverse=True,
    )
    for forgotten in (False, True):
        if forgotten:
            with closing(Store(tmp_path)) as keeper:
                recent.forget(keeper._db, NOW_MS / 1000)
        with history.reading(tmp_path) as db:
            assert db is not None
            found: list[str] = []
            while page := history.latest(
                db, function=function, failed=failed, before=found[-1] if found else "", limit=37
            ):
                assert len(page) <= 37
                assert all(row.function == function for row in page if function)
                found += [row.id for row in page]
        assert found == wanted


def test_what_runs_is_among_them(tmp_path: Path, journal: Journal, dice: random.Random) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    write(journal, [closed(dice, key, NOW_MS - 90 * MINUTE, 0)])
    journal.write(records.opened(Opened(id_at(NOW_MS, 1), key)))
    take_in(tmp_path)
    with history.reading(tmp_path) as db:
        assert db is not None
        assert [row.outcome for row in history.latest(db)] == ["running", "ok"]
        assert [row.outcome for row in history.latest(db, function="/a")] == ["running", "ok"]
        assert history.latest(db, failed=True) == []


def test_an_invocation_has_everything(tmp_path: Path, journal: Journal) -> None:
    key = journal.origin(Origin("/a", "d1", ""))
    id = id_at(NOW_MS, 1)
    journal.write(records.opened(Opened(id, key)))
    journal.write(records.closed(Closed(id, key, 200, True, "ok", 1.5, 0.5, 10.0, 4_000_000, 2048, 0.005, 3, 7)))
    journal.write(records.streamed(Streamed(id, key, 4.0)))
    journal.write(records.amended(Amended(id, key, 1_000_000)))
    calls = Journal(tmp_path / "calls", print, 4096)
    calls.write(records.spent(Spent(id_at(NOW_MS, 2), id, "/a", "openai", "small", 100, 10, 0.25, False)))
    take_in(tmp_path)
    with history.reading(tmp_path) as db:
        assert db is not None
        assert history.one(db, id) == Invocation(
            id, "/a", "d1", "", NOW_MS, 200, True, 1.5, 0.5, 4.0, 10.0, 5.0, 2.0, 0.005, 3, 7, 100, 10, 0.25,
            "openai", "small", "ok",
        )  # fmt: skip
        assert history.one(db, id_at(NOW_MS, 3)) is None
        figures, _ = history.figures(db, WINDOWS["15m"], NOW_MS)
        columns = history.series(db, WINDOWS["15m"], NOW_MS)
    assert figures["/a"].first_byte["p50"] == pytest.approx(4.0, rel=0.046)
    assert figures["/a"].sums["tokens_in"] == 100 and figures["/a"].sums["cost_usd"] == 0.25
    assert figures["/a"].sums["cpu_ms"] == 5.0
    assert (columns["tokens_out"][-1], columns["first_byte_p50"][-1]) == (10, figures["/a"].first_byte["p50"])


def test_where_there_is_no_ledger_nothing_is_read(tmp_path: Path) -> None:
    with history.reading(tmp_path / "nowhere") as db:
        assert db is None


def test_old_steps_are_forgotten(tmp_path: Path, journal: Journal, dice: random.Random) -> None:
    key = journal.origin(Origin("/a", "d", ""))
    write(journal, [closed(dice, key, NOW_MS - hours * 60 * MINUTE, hours) for hours in range(72)])
    take_in(tmp_path)
    with closing(Store(tmp_path)) as keeper:
        recent.forget(keeper._db, NOW_MS / 1000)
        kept = dict(keeper._db.execute("SELECT step, count(*) FROM slots GROUP BY step"))
        assert dict(keeper._db.execute("SELECT step, count(DISTINCT slot) FROM spreads GROUP BY step"))[5] == kept[5]
    assert kept == {1: 3, 5: 49, 60: 72} or kept == {1: 4, 5: 50, 60: 72}


def test_ids() -> None:
    assert history.is_id(id_at(NOW_MS, 1))
    for text in ("", "x" * 24, id_at(NOW_MS, 1).upper(), id_at(NOW_MS, 1)[1:], "' OR 1=1 --".ljust(24)):
        assert not history.is_id(text)


def test_a_hundred_thousand_rows_are_read_as_fast_as_a_few(tmp_path: Path, dice: random.Random) -> None:
    """Not a bound on time: figures and lists must not look at every row (SQLite counts its steps)."""
    journal = Journal(tmp_path / "journal", print)
    keys = [journal.origin(Origin(name, "d", "")) for name in ("/a", "/b", "/c")]
    for number in range(100_000):
        row = closed(dice, keys[number % 3 if number > 10 else 0], NOW_MS - number * 600, number)
        journal.write(records.closed(row))
    take_in(tmp_path)
    with history.reading(tmp_path) as db:
        assert db is not None
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1000
            return 0

        db.set_progress_handler(count, 1000)
        began_s = time.perf_counter()
        history.figures(db, WINDOWS["24h"], NOW_MS)
        history.beats(db, WINDOWS["24h"], NOW_MS)
        assert len(history.latest(db, limit=50)) == 50
        assert len(history.latest(db, function="/b", limit=50)) == 50
        assert history.latest(db, failed=True, limit=50) == []
        print(f"{(time.perf_counter() - began_s) * 1000:.1f} ms")
    assert steps < 900_000
