"""Who has to make room where the system has nothing left, and who does not."""

from __future__ import annotations

import pytest

from lampyr.node import scarcity
from lampyr.node.scarcity import Scarcity


class Base:
    """As much of a base as it talks to: one process is `parked`."""

    def __init__(self) -> None:
        self.parked = True
        self.said: list[str] = []

    def end_parked(self) -> bool:
        before, self.parked = self.parked, False
        return before

    def tell(self, text: str, function: str) -> None:
        self.said.append(f"{function}: {text}")


def test_what_is_parked_makes_room_in_the_gateway() -> None:
    base = Base()
    of_function = Scarcity(base, "/a")  # type: ignore[arg-type]
    of_function.met("no descriptor", here=True)
    assert (base.parked, base.said, of_function.lasts) == (False, [], False)
    soon_s = of_function.until_s
    of_function.met("no descriptor", here=True)
    assert of_function.lasts and of_function.until_s > soon_s + scarcity.PAUSE_S / 2
    of_function.met("no descriptor", here=True)
    assert len(base.said) == 1


def test_a_snapshot_that_cannot_fork_takes_nothing_from_other_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be at a limit of its own, or say so for no reason. What a fork bomb has left is gone soon."""
    base = Base()
    of_function = Scarcity(base, "/a")  # type: ignore[arg-type]
    now_s = 100.0
    monkeypatch.setattr(scarcity, "monotonic", lambda: now_s)
    of_function.met("no process", here=False)
    assert base.parked and not of_function.lasts and not base.said
    while of_function.until_s < 100.0 + scarcity.PAUSE_S:
        now_s = of_function.until_s
        of_function.met("no process", here=False)
    now_s = of_function.until_s
    of_function.met("no process", here=False)
    assert base.parked and of_function.lasts and len(base.said) == 1
    now_s = of_function.until_s
    of_function.met("no process", here=False)
    assert of_function.lasts
    now_s += 10.0
    of_function.met("no process", here=False)
    assert not of_function.lasts
