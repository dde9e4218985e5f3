"""Which snapshots stay in memory."""

from __future__ import annotations

from lampyr.node.shelf import Shelf


class Snapshot:
    def __init__(self, name: str, gone: list[str]) -> None:
        self.name, self.gone, self.needed = name, gone, False

    def let_go(self) -> None:
        self.gone.append(self.name)


def shelf_of(names: str, most_bytes: int) -> tuple[Shelf, dict[str, Snapshot], list[str]]:
    shelf, gone = Shelf(most_bytes), list[str]()
    snapshots = {name: Snapshot(name, gone) for name in names}
    return shelf, snapshots, gone


def test_the_longest_unused_goes_first() -> None:
    shelf, one, gone = shelf_of("abcd", 30)
    for name in "abc":
        shelf.put(one[name], 10)
    shelf.used(one["a"])
    assert gone == []
    shelf.put(one["d"], 10)
    assert gone == ["b"]


def test_what_is_needed_stays() -> None:
    shelf, one, gone = shelf_of("abc", 20)
    one["a"].needed = True
    for name in "abc":
        shelf.put(one[name], 10)
    assert gone == ["b"]


def test_the_newest_stays_however_large() -> None:
    shelf, one, gone = shelf_of("ab", 5)
    shelf.put(one["a"], 10)
    shelf.put(one["b"], 10)
    assert gone == ["a"]


def test_what_is_gone_counts_no_more() -> None:
    shelf, one, gone = shelf_of("abc", 20)
    shelf.put(one["a"], 10)
    shelf.put(one["b"], 10)
    shelf.drop(one["a"])
    shelf.put(one["c"], 10)
    assert gone == []
