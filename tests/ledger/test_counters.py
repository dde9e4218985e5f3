"""What is used of budgets: exact, there again after a restart, and begun anew with each period."""

from __future__ import annotations

from pathlib import Path

from lampyr.ledger import counters
from lampyr.ledger.counters import Counters


def test_it_is_there_again(tmp_path: Path) -> None:
    for number in range(5):
        counter = Counters(tmp_path / "budgets", print).counter("/a", "invocations", "day")
        assert counter.used(100) == number
        counter.add(100, 1)
    assert counter.used(200) == 0
    counter.add(200, 2.5)
    assert counter.used(200) == 2.5
    assert Counters(tmp_path / "budgets", print).counter("/b", "invocations", "day").used(200) == 0


def test_a_full_file_gives_up_the_eldest(tmp_path: Path) -> None:
    numbers = Counters(tmp_path / "budgets", print)
    for number in range(counters.SLOTS):
        numbers.counter(str(number)).add(1000 + number, 7)
    numbers.counter("new").add(9000, 1)
    again = Counters(tmp_path / "budgets", print)
    assert (again.counter("new").used(9000), again.counter("1").used(1001)) == (1, 7)
    assert numbers.counter("0").used(1000) == 0


def test_a_file_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "budgets").mkdir()
    counter = Counters(tmp_path / "budgets", told.append).counter("/a")
    counter.add(1, 1)
    assert counter.used(1) == 1 and "cannot be kept" in told[0]


def test_a_full_file_does_not_give_up_what_is_new(tmp_path: Path) -> None:
    numbers = Counters(tmp_path / "budgets", print)
    for number in range(counters.SLOTS):
        numbers.counter(str(number)).add(1000 + number, 7)
    fresh = [numbers.counter("fresh", str(number)) for number in range(50)]
    for number, one in enumerate(fresh):
        one.add(9000, number)
    assert [one.used(9000) for one in fresh] == list(range(50))
