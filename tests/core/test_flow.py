"""How much one function may say."""

from __future__ import annotations

from lampyr.core.flow import BURST_BYTES, BURST_S, BYTES_PER_S, LINE_BYTES, SHARE, SHUT_S, STACK_BYTES, Flow, Patience

SIZE = 1024 - LINE_BYTES


def test_a_burst_is_let_through_and_then_so_much_a_second() -> None:
    flow = Flow()
    through = [flow.lets_through(SIZE, 1.0) for _ in range(BURST_BYTES // 1024 + 5)]
    assert through == [True] * (BURST_BYTES // 1024) + [False] * 5
    assert flow.missing == 5
    assert not flow.lets_through(SIZE, 1.0 + SHUT_S * 0.99)
    later = [flow.lets_through(SIZE, 1.0 + SHUT_S) for _ in range(BYTES_PER_S // 1024 + 1)]
    assert later == [True] * (BYTES_PER_S // 1024) + [False]


def test_a_function_that_says_little_is_never_cut() -> None:
    flow = Flow()
    assert all(flow.lets_through(SIZE, 5.0 + step / (BYTES_PER_S // 1024)) for step in range(20_000))
    assert flow.missing == 0


def test_a_stack_that_is_expected_is_let_through_once_whatever_was_before() -> None:
    flow = Flow()
    while flow.lets_through(SIZE, 1.0):
        pass
    assert not flow.lets_through(SIZE, 1.0, stderr=True)
    flow.expect_stack()
    assert not flow.lets_through(SIZE, 1.0)
    stack = [flow.lets_through(SIZE, 1.0, stderr=True) for _ in range(STACK_BYTES // 1024 + 1)]
    assert stack == [True] * (STACK_BYTES // 1024) + [False]


def test_empty_lines_are_not_free() -> None:
    flow = Flow()
    assert sum(flow.lets_through(0, 1.0) for _ in range(BURST_BYTES)) == BURST_BYTES // LINE_BYTES


def test_a_function_takes_a_tenth_of_the_time_at_most_whoever_of_it_speaks() -> None:
    patience, now_s, used_s = Patience(), 1.0, 0.0
    ready_s = [1.0] * 40  # pipes that always have something to say
    while now_s < 31.0:
        at = min(range(40), key=ready_s.__getitem__)
        now_s = max(now_s, ready_s[at])
        used_s += 0.0005
        ready_s[at] = now_s + 0.0005 + patience.pause_s(now_s, now_s + 0.0005)
        now_s += 0.0005
    assert used_s <= BURST_S + 30 * SHARE * 1.5
    assert used_s >= 30 * SHARE * 0.5


def test_who_says_little_is_always_listened_to() -> None:
    patience = Patience()
    assert not any(patience.pause_s(at / 100, at / 100 + 0.0005) for at in range(100, 10_000))
