"""How many instances there are: properties over random traffic, figures over recorded traffic, in simulated time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lampyr.core.autoscale import (
    BUSY_AFTER_S,
    LAST_PAUSE_S,
    START_S,
    STARTS_AT_ONCE,
    Bounds,
    Load,
    Plan,
    pause_s,
    scale,
    stood_by,
)

Traffic = list[tuple[float, float]]  # when a call comes, and how long it runs, in seconds
RECORDED = Path(__file__).parent / "traffic"
START_TAKES_S = 0.005


@dataclass(eq=False)
class Simulated:
    """An instance that takes as long as it is told to."""

    since_s: float
    ready: bool = False
    ended: bool = False
    running: int = 0
    used: bool = False  # it has served a call


@dataclass
class Simulation:
    """The pool of one function, without processes: acts on plans as node/pool.py does."""

    bounds: Bounds
    start_takes_s: float = START_TAKES_S
    now_s: float = 0.0
    instances: list[Simulated] = field(default_factory=list)
    open: list[Simulated] = field(default_factory=list)
    waiting: deque[tuple[float, float]] = field(default_factory=deque)
    waits_s: list[float] = field(default_factory=list)
    most: int = 0
    demand: int = 0  # calls that ran or waited at once, at most
    running: int = 0
    changes: list[tuple[float, str]] = field(default_factory=list)
    idled_s: list[float] = field(default_factory=list)  # how long those that were ended had been idle
    looks: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)
    _look_s: float = float("inf")

    def at(self, when_s: float, then: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), then))

    def run(self, traffic: Traffic, until_s: float = float("inf")) -> Simulation:
        for when_s, takes_s in traffic:
            self.at(when_s, lambda takes_s=takes_s: self._arrive(takes_s))
        self._scale()
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, then = heapq.heappop(self._events)
            then()
        return self

    def _arrive(self, takes_s: float) -> None:
        self.waiting.append((self.now_s, takes_s))
        self.demand = max(self.demand, self.running + len(self.waiting))
        self._serve()
        if self.waiting:
            self._scale()

    def _serve(self) -> None:
        while self.waiting and self.open:
            came_s, takes_s = self.waiting.popleft()
            self.waits_s.append(self.now_s - came_s)
            self._begin(self.open[-1], takes_s)

    def _begin(self, instance: Simulated, takes_s: float) -> None:
        assert instance.ready and not instance.ended
        if not instance.running:
            instance.since_s = self.now_s
        instance.running += 1
        instance.used = True
        self.running += 1
        if instance.running == self.bounds.concurrency:
            self.open.remove(instance)
            if not self.open:
                self._look_by(self.now_s + BUSY_AFTER_S)
        self.at(self.now_s + takes_s, lambda: self._freed(instance))

    def _freed(self, instance: Simulated) -> None:
        instance.running -= 1
        self.running -= 1
        was_full = instance.running + 1 == self.bounds.concurrency
        took_s = self.now_s - instance.since_s
        if was_full and self.open and not self.open[0].running and stood_by(took_s, len(self.open)):
            self.open[0].since_s = self.now_s
        if not instance.running:
            instance.since_s = self.now_s
        if was_full:
            self.open.append(instance)
        self._serve()
        if not instance.running:
            self._look_by(instance.since_s + self.bounds.idle_timeout_s)

    def _hello(self, instance: Simulated) -> None:
        instance.ready, instance.since_s = True, self.now_s
        self.open.append(instance)
        self._serve()
        self._scale()

    def _load(self) -> Load:
        return Load(
            waiting=len(self.waiting),
            instances=len(self.instances),
            starting_s=[one.since_s for one in self.instances if not one.ready],
            full_s=[one.since_s for one in self.instances if one.ready and one.running == self.bounds.concurrency],
            room=len(self.open),
            idle_s=sorted(one.since_s for one in self.open if not one.running),
        )

    def _look_by(self, look_s: float) -> None:
        if look_s < self._look_s:
            self._look_s = look_s
            self.at(max(look_s, self.now_s), lambda: self._look(look_s))

    def _look(self, look_s: float) -> None:
        if look_s == self._look_s:
            self.looks += 1
            self._look_s = float("inf")
            self._scale()

    def _scale(self) -> None:
        plan = scale(self.now_s, self.bounds, self._load())
        for _ in range(plan.start):
            self._start()
        idle = sorted((one for one in self.open if not one.running), key=lambda one: one.since_s)
        for instance in idle[: plan.end]:
            self._end(instance)
        if plan.look_s is not None:
            assert plan.look_s > self.now_s, "it would look for ever"
            self._look_by(plan.look_s)

    def _start(self) -> None:
        instance = Simulated(self.now_s)
        self.instances.append(instance)
        self.most = max(self.most, len(self.instances))
        self.changes.append((self.now_s, "start"))
        young = sum(not one.ready and one.since_s + START_S > self.now_s for one in self.instances)
        assert young <= STARTS_AT_ONCE
        self.at(self.now_s + self.start_takes_s, lambda: self._hello(instance))

    def _end(self, instance: Simulated) -> None:
        self.open.remove(instance)
        self.instances.remove(instance)
        instance.ended = True
        self.idled_s.append(self.now_s - instance.since_s)
        self.changes.append((self.now_s, "end"))


def bounds(concurrency: int = 1, least: int = 0, most: int = 100, idle_timeout_s: float = 60.0) -> Bounds:
    return Bounds(concurrency, least, most, idle_timeout_s)


times = st.floats(0, 30, allow_nan=False)
takes = st.one_of(st.floats(0.0001, 0.05), st.floats(0.05, 5))
traffics = st.lists(st.tuples(times, takes), min_size=1, max_size=60)


@st.composite
def any_bounds(draw: st.DrawFn) -> Bounds:
    most = draw(st.integers(1, 20))
    least = draw(st.integers(0, min(most, 4)))
    return Bounds(draw(st.sampled_from([1, 1, 2, 5])), least, most, draw(st.sampled_from([0.0, 0.02, 1.0, 10.0, 60.0])))


@settings(deadline=None, max_examples=300)
@given(traffics, any_bounds(), st.sampled_from([0.002, 0.005, 0.2, 1.5]))
def test_any_traffic_is_served_within_the_bounds_and_all_goes_back_to_the_least(
    traffic: Traffic, bounds: Bounds, start_takes_s: float
) -> None:
    simulation = Simulation(bounds, start_takes_s).run(traffic)  # until nothing happens any more
    assert len(simulation.waits_s) == len(traffic) and not simulation.waiting
    assert len(simulation.instances) == bounds.min_instances
    needed = -(-simulation.demand // bounds.concurrency)
    assert simulation.most <= min(max(needed, bounds.min_instances) + 1, bounds.max_instances)


@settings(deadline=None, max_examples=200)
@given(traffics, any_bounds())
def test_none_is_ended_before_it_was_idle_for_its_time(traffic: Traffic, bounds: Bounds) -> None:
    simulation = Simulation(bounds).run(traffic)
    assert min(simulation.idled_s, default=bounds.idle_timeout_s) >= bounds.idle_timeout_s - 1e-6
    starts = sum(what == "start" for _, what in simulation.changes)
    assert starts - len(simulation.idled_s) == bounds.min_instances


@settings(deadline=None, max_examples=200)
@given(traffics, any_bounds())
def test_zero_comes_soon_after_the_last_call(traffic: Traffic, bounds: Bounds) -> None:
    simulation = Simulation(bounds)
    ends_s: list[float] = []
    freed = simulation._freed

    def note(instance: Simulated) -> None:
        freed(instance)
        ends_s.append(simulation.now_s)

    simulation._freed = note  # type: ignore[method-assign]  # to listen
    simulation.run(traffic)
    ended_s = max((when_s for when_s, what in simulation.changes if what == "end"), default=0.0)
    slack_s = bounds.idle_timeout_s + START_TAKES_S + 1e-6
    assert ended_s <= max(ends_s) + slack_s
    assert simulation.looks <= 40 + 6 * len(traffic)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 8),
    st.floats(0.01, 3),
    st.floats(0.01, 2),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([5.0, 60.0]),
)
def test_steady_traffic_settles(at_once: int, takes_s: float, pause_s: float, concurrency: int, idle_s: float) -> None:
    """Calls in step, for ever: after the first minutes nothing is started or ended any more."""
    assume(abs(takes_s - BUSY_AFTER_S) > 1e-6)  # there rounding decides which of the calls make it busy: the next test
    period_s = takes_s + pause_s
    rounds = int(4 * idle_s / period_s) + 10
    traffic = [(number * period_s, takes_s) for number in range(rounds) for _ in range(at_once)]
    until_s = (rounds - 1) * period_s
    simulation = Simulation(bounds(concurrency, idle_timeout_s=idle_s)).run(traffic, until_s)
    assert [change for change in simulation.changes if change[0] > 2 * idle_s + 4 * period_s] == []


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 8), st.floats(0.01, 2), st.sampled_from([1, 2, 4]), st.lists(st.booleans(), min_size=1))
def test_calls_at_the_very_bound_of_busy_start_a_spare_once_in_an_idle_timeout(
    at_once: int, pause_s: float, concurrency: int, longer: list[bool]
) -> None:
    """Some last a little less than what makes a function busy, some a little more."""
    idle_s, period_s = 5.0, BUSY_AFTER_S + pause_s
    rounds = int(6 * idle_s / period_s) + 10
    takes_s = [BUSY_AFTER_S + (1e-9 if longer[number % len(longer)] else -1e-9) for number in range(rounds)]
    traffic = [(number * period_s, takes_s[number]) for number in range(rounds) for _ in range(at_once)]
    simulation = Simulation(bounds(concurrency, idle_timeout_s=idle_s)).run(traffic, (rounds - 1) * period_s)
    late_s = [when_s for when_s, what in simulation.changes if what == "start" and when_s > 2 * idle_s + 4 * period_s]
    assert all(after_s - before_s >= idle_s for before_s, after_s in pairwise(late_s))


def test_a_call_that_lasts_has_a_spare_beside_it_and_the_next_does_not_wait() -> None:
    traffic = [(0.0, 20.0), (5.0, 20.0), (10.0, 20.0), (15.0, 20.0)]
    simulation = Simulation(bounds()).run(traffic)
    assert simulation.waits_s == [START_TAKES_S, 0.0, 0.0, 0.0]
    assert simulation.most == 5


def test_short_calls_one_after_another_need_one_instance_and_no_spare() -> None:
    simulation = Simulation(bounds()).run([(number * 0.06, 0.05) for number in range(2000)])
    assert simulation.most == 1


def test_a_spare_keeps_within_max_instances() -> None:
    assert Simulation(bounds(most=1)).run([(0.0, 20.0), (1.0, 1.0)]).most == 1


def test_a_spare_stays_while_the_function_is_busy_and_goes_with_the_others() -> None:
    simulation = Simulation(bounds(idle_timeout_s=2)).run([(0.0, 30.0)])
    starts = [when_s for when_s, what in simulation.changes if what == "start"]
    ends = [when_s for when_s, what in simulation.changes if what == "end"]
    assert starts == pytest.approx([0.0, START_TAKES_S + BUSY_AFTER_S])
    assert ends == pytest.approx([32 + START_TAKES_S] * 2)


def test_starts_of_a_burst_are_paced_and_slow_ones_do_not_hold_up_the_others() -> None:
    burst = [(0.0, 1.0)] * 200
    quick = Simulation(bounds()).run(burst)
    assert quick.most == 100 and max(quick.waits_s) < 1.3
    slow = Simulation(bounds(), start_takes_s=1.0).run(burst)
    assert max(slow.waits_s) < 1.0 + 100 / STARTS_AT_ONCE * START_S + 1.1


def test_nothing_is_started_ahead_after_instances_that_served_nothing() -> None:
    load = Load(instances=1, full_s=[0.0], paused_until_s=10.0)
    assert scale(5.0, bounds(), load) == Plan(look_s=10.0)
    assert scale(10.0, bounds(), load).start == 1
    load = Load(paused_until_s=10.0)
    assert scale(5.0, bounds(least=2), load) == Plan(look_s=10.0)
    load.waiting = 1  # somebody who waits is another matter
    assert scale(5.0, bounds(least=2), load).start == 1


def test_pauses_double_up_to_a_bound() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3, 50)] == [1, 2, 4, LAST_PAUSE_S]


def recorded(name: str) -> Traffic:
    lines: Iterable[str] = (RECORDED / name).read_text().splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return [(int(came_ms) / 1000, int(took_ms) / 1000) for came_ms, took_ms in rows]


@pytest.mark.parametrize(
    ("name", "most", "waited", "changes"),
    # At most so many instances; so many calls waited for one; so many starts and ends while calls still came.
    [("burst.txt", 100, 200, 100), ("chat.txt", 10, 5, 10)],
)
def test_recorded_traffic(name: str, most: int, waited: int, changes: int) -> None:
    traffic = recorded(name)
    simulation = Simulation(bounds()).run(traffic)
    assert len(simulation.waits_s) == len(traffic)
    assert simulation.most <= most
    assert sum(wait_s > 0 for wait_s in simulation.waits_s) <= waited
    last_s = max(came_s for came_s, _ in traffic)
    assert len([when_s for when_s, _ in simulation.changes if when_s <= last_s + 1]) <= changes
    assert simulation.instances == []
