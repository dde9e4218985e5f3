"""When a start is expected: by the pauses between the latest ones."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.node import parking
from lampyr.node.parking import KNOWN, LEAST_S, MOST_S, Parking, expected_until_s


@pytest.mark.parametrize("starts_s", [(), (5.0,), (5.0, 6.0)])
def test_of_few_starts_nobody_knows(starts_s: tuple[float, ...]) -> None:
    assert expected_until_s(starts_s) == 0.0


@pytest.mark.parametrize(
    ("starts_s", "until_s"),
    [
        ((0.0, 10.0, 20.0), 40.0),
        ((0.0, 10.0, 12.0), 32.0),
        ((0.0, 2.0, 12.0), 32.0),
        ((0.0, 0.3, 0.6), 0.6 + LEAST_S),
        ((0.0, 3600.0, 7200.0), 7200.0 + MOST_S),
    ],
)
def test_it_is_expected_for_twice_the_longest_pause(starts_s: tuple[float, ...], until_s: float) -> None:
    assert expected_until_s(starts_s) == pytest.approx(until_s)


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=3).map(sorted))
def test_it_is_never_expected_for_longer_than_that(starts_s: list[float]) -> None:
    assert LEAST_S - 1e-6 <= expected_until_s(starts_s) - starts_s[-1] <= MOST_S + 1e-6


class Pool:
    """As much of a pool as parking talks to: nothing of it runs."""

    waiting = ()

    def __init__(self, loop: asyncio.AbstractEventLoop, state: str = "ready") -> None:
        self.loop = loop
        self.snapshot = SimpleNamespace(state=state, fence=SimpleNamespace(release=lambda number: None))
        self.births = self
        self.instances: dict[int, Any] = {}
        self.ordered = 0
        self.let_go = 0

    def order(self, order: dict[str, bool], parcel: int) -> Any:
        self.ordered += order["parked"]
        process = SimpleNamespace(state="starting", number=1, forked_s=time.monotonic(), clear_away=self.clear_away)
        process.step = lambda event: None
        return process

    def clear_away(self) -> None:
        self.let_go += 1


def started(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Parking:
    """The parking of a pool whose next start is expected."""
    monkeypatch.setattr(parking, "LULL_S", 0.02)
    monkeypatch.setattr(parking, "memory_is_short", lambda: False)
    of_pool = Parking(pool)  # type: ignore[arg-type]
    for _ in range(KNOWN):
        time.sleep(0.03)
        of_pool.started()
    return of_pool


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0.2))


@pytest.fixture
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_a_deployment_that_has_been_followed_by_another_parks_nothing(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(loop)
    of_pool = started(pool, monkeypatch)
    turn(loop)
    assert pool.ordered == 1 and of_pool.process is not None
    of_pool.forget()
    assert pool.let_go == 1 and of_pool.process is None
    of_pool.stirred()  # the last of its instances has ended
    turn(loop)
    assert pool.ordered == 1


def test_without_a_snapshot_nothing_is_parked(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(loop, "absent")
    of_pool = started(pool, monkeypatch)
    turn(loop)
    assert pool.ordered == 0 and of_pool.process is None
