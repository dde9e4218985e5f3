"""Counts that only grow: the same however the rows were taken in, and none lost with the rows."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from lampyr.ledger import records, store
from lampyr.ledger.ever import Spread
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import OUTCOMES, REFUSED, Amended, Closed, Opened, Origin
from lampyr.ledger.store import Store

NOON_MS = 500_000 * 3600_000
LET_IN = [word for word in OUTCOMES if word not in REFUSED and word != "interrupted"]


def random_row(dice: random.Random, number: int, origin: int) -> Closed:
    cold = dice.random() < 0.2
    times = (dice.expovariate(1), dice.uniform(1, 30) if cold else 0.0, dice.expovariate(0.01))
    status, outcome = dice.choice((200, 404, 500)), dice.choice(OUTCOMES[:8])
    return Closed(f"{NOON_MS:011x}{number:013x}", origin, status, cold, outcome, *times, 1000, 10, 0.1, 2, 3)


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_counts_are_those_of_the_rows(tmp_path: Path, at_once: int) -> None:
    """Functions of two deployments count together; what was open when its server ended counts as interrupted."""
    dice = random.Random(at_once)
    journal = Journal(tmp_path / "journal", print, 4096)
    origins = {name: [journal.origin(Origin(name, one, "")) for one in ("d1", "d2")] for name in ("/a", "/b")}
    closed = {
        name: [random_row(dice, dice.getrandbits(40), dice.choice(keys)) for _ in range(150)]
        for name, keys in origins.items()
    }
    for row in sorted([*closed["/a"], *closed["/b"]]):
        journal.write(records.opened(Opened(row.id, row.origin)))
        journal.write(records.closed(row))
        journal.write(records.amended(Amended(row.id, row.origin, 500)))
    journal.write(records.opened(Opened(f"{NOON_MS:011x}{7:013x}", origins["/b"][0])))
    journal.write(records.started())
    with closing(Store(tmp_path)) as keeper:
        while keeper.absorb(at_once):
            pass
        counted = store.counted(tmp_path)
        assert keeper.forget(NOON_MS / 1000 + 31 * 86400, 30) > 0
        assert store.counted(tmp_path) == counted

    for name, rows in closed.items():
        answers: dict[tuple[str, str, int], int] = {}
        for row in rows:
            answers[name, row.outcome, row.status] = answers.get((name, row.outcome, row.status), 0) + 1
        if name == "/b":
            answers["/b", "interrupted", 0] = 1
        assert {key: count for key, count in counted.answers.items() if key[0] == name} == answers
        let_in = [row for row in rows if row.outcome not in REFUSED]
        for what, times_ms in (
            ("duration", [row.duration_ms for row in let_in]),
            ("queue", [row.queue_ms for row in let_in]),
            ("init", [row.init_ms for row in let_in if row.cold]),
        ):
            expected = Spread.of(times_ms)
            assert counted.times[name, what].counts == expected.counts
            assert counted.times[name, what].total_ms == pytest.approx(expected.total_ms)
        sums = counted.sums[name, ""]
        assert sums["invocations"] == len(let_in) + (name == "/b")
        assert sums["refused"] == len(rows) - len(let_in)
        assert sums["billed_ms"] == pytest.approx(sum(row.duration_ms for row in let_in))
        assert sums["cpu_ms"] == pytest.approx(len(let_in) * 0.001 + len(rows) * 0.0005)


def test_a_ledger_that_is_not_there_has_counted_nothing(tmp_path: Path) -> None:
    assert store.counted(tmp_path) == ({}, {}, {})
