"""How much one function may say."""

from __future__ import annotations

from lampyr.core.flow import BURST_BYTES, BYTES_PER_S, LINE_BYTES, SHUT_S, Flow

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


def test_empty_lines_are_not_free() -> None:
    flow = Flow()
    assert sum(flow.lets_through(0, 1.0) for _ in range(BURST_BYTES)) == BURST_BYTES // LINE_BYTES
