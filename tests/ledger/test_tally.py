"""The arithmetic of metering: nothing is lost or added on the way from records to sums."""

from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from lampyr.ledger.records import ERRORS, OUTCOMES, REFUSED, Amended, Closed, Opened, Record, Spent, Started
from lampyr.ledger.tally import HOUR_MS, SUMS, Tally
from lampyr.node.meter import Meter, SharedMeter

TIMES = st.floats(0, 1e6)
SIZES = st.integers(0, 9)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Record], list[Spent]]:
    """What a gateway and a broker may write: each invocation is opened once and perhaps closed; gateways may die."""
    records: list[Record] = []
    calls: list[Spent] = []
    running: list[Opened] = []
    for number in range(draw(st.integers(0, 25))):
        opened = Opened(f"{draw(st.integers(0, 5)) * HOUR_MS:011x}{number:013x}", draw(st.integers(0, 2)))
        records.append(opened)
        running.append(opened)
        for _ in range(draw(st.integers(0, 2))):
            provider, tokens = draw(st.sampled_from(["openai", "local"])), draw(st.integers(0, 1000))
            id = f"{opened.id[:11]}{1000 + len(calls):013x}"
            calls.append(Spent(id, opened.id, "/a", provider, "m", tokens, 2 * tokens, tokens / 8, False))
        if draw(st.booleans()):
            closing = running.pop(draw(st.integers(0, len(running) - 1)))
            figures = (draw(TIMES), draw(TIMES), draw(TIMES))
            cpu_ns, gb_s, sizes = draw(st.integers(0, 10**9)), draw(TIMES), (draw(SIZES), draw(SIZES))
            outcome = draw(st.sampled_from(OUTCOMES[:-1]))
            cold = draw(st.booleans())
            records.append(Closed(*closing, 200, cold, outcome, *figures, cpu_ns, 1024, gb_s, *sizes))
            if draw(st.booleans()):
                records.append(Amended(closing.id, closing.origin, draw(st.integers(0, 10**9))))
        if draw(st.integers(0, 9)) == 0:
            records.append(Started())
            running.clear()
    return records, calls


@settings(max_examples=200)
@given(histories(), st.lists(st.integers(0, 100), max_size=5))
def test_sums_are_those_of_the_rows_however_they_are_cut(
    history: tuple[list[Record], list[Spent]], cuts: list[int]
) -> None:
    records, calls = history
    whole = Tally()
    whole.call(calls)
    whole.take(records)
    whole.settle()
    let_in = [one for one in whole.closed if one.outcome not in REFUSED]
    expected = {
        "invocations": len(let_in) + len(whole.interrupted),
        "errors": sum(one.outcome in ERRORS for one in let_in) + len(whole.interrupted),
        "refused": len(whole.closed) - len(let_in),
        "billed_ms": sum(one.duration_ms for one in let_in),
        "cpu_ms": sum(one.cpu_ns for one in let_in) / 1e6 + sum(one.cpu_ns for one in whole.amended) / 1e6,
        "gb_s": sum(one.gb_s for one in let_in),
        "tokens_in": sum(one.tokens_in for one in calls if one.invocation not in whole.running),
        "cost_usd": sum(one.cost_usd for one in calls if one.invocation not in whole.running),
        "calls": sum(one.invocation not in whole.running for one in calls),
    }
    for name, value in expected.items():
        at = SUMS.index(name)
        assert math.isclose(sum(sums[at] for sums in whole.sums.values()), value, abs_tol=1e-6), name
    # In portions, as control takes them.
    sums, running = dict[tuple[object, ...], list[float]](), dict[str, int]()
    called = {one.invocation: [other for other in calls if other.invocation == one.invocation] for one in calls}
    keys = dict(whole.keys)
    edges = sorted({0, len(records), *(cut % (len(records) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        part = Tally(running=running, called=called, home=keys.get)
        part.take(records[begin:end])
        for key, more in part.sums.items():
            sums[key] = [one + other for one, other in zip(sums.get(key, [0.0] * len(SUMS)), more, strict=True)]
        running, called = part.running, part.called
    assert sums.keys() == whole.sums.keys()
    for key, wanted in whole.sums.items():
        assert all(math.isclose(one, other, abs_tol=1e-6) for one, other in zip(sums[key], wanted, strict=True))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.floats(0.001, 5)), min_size=1, max_size=40))
def test_calls_that_share_an_instance_share_what_it_used_and_no_more(steps: list[tuple[bool, int, float]]) -> None:
    """GiB-seconds of all calls are the memory times the time in which there was any; CPU time likewise."""
    meter, now_s, busy_s = SharedMeter(2.0), 10.0, 0.0
    meter._kept_ns = int(now_s * 1e9)  # as of a process that uses the processor all the time
    running: list[tuple[float, tuple[int, float]]] = []
    cpu_ns, gb_s = 0, 0.0

    def end(which: int) -> None:
        nonlocal cpu_ns, gb_s
        begun_s, mark = running[which % len(running)]
        used_ns, memory = meter.spent(mark, len(running), begun_s, now_s)
        del running[which % len(running)]
        assert used_ns >= 0 and memory >= -1e-9
        cpu_ns, gb_s = cpu_ns + used_ns, gb_s + memory

    for begins, which, pause_s in steps:
        if begins or not running:
            running.append((now_s, meter.begin(len(running), now_s)))
        else:
            end(which)
        now_s += pause_s
        busy_s += pause_s if running else 0.0
        meter._kept_ns = int(now_s * 1e9)
    while running:
        end(0)
    assert math.isclose(gb_s, 2.0 * busy_s, rel_tol=1e-6)
    assert math.isclose(cpu_ns, busy_s * 1e9, abs_tol=10_000)


@given(st.floats(0.03, 1024), st.floats(0, 1e6), st.floats(0, 1e4))
def test_an_instance_of_one_call_at_a_time_costs_its_memory_for_as_long(
    memory_gb: float, begun_s: float, took_s: float
) -> None:
    meter = Meter(memory_gb)
    mark = meter.begin(0, begun_s)
    _, gb_s = meter.spent(mark, 1, begun_s, begun_s + took_s)
    assert math.isclose(gb_s, memory_gb * took_s, rel_tol=1e-6, abs_tol=1e-4)
