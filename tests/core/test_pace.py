"""When a request may wait behind another one."""

from __future__ import annotations

from lampyr.core.pace import DISTRUST, QUICK_S, Pace


def answers(pace: Pace, count: int, duration_s: float) -> Pace:
    for _ in range(count):
        pace.took(duration_s)
    return pace


def test_a_function_nobody_knows_is_not_quick() -> None:
    assert not Pace().quick


def test_quick_answers_make_it_quick_and_slow_ones_end_that() -> None:
    pace = answers(Pace(), 50, QUICK_S / 10)
    assert pace.quick
    assert not answers(pace, 1, QUICK_S * 20).quick


def test_slow_answers_never_make_it_quick() -> None:
    assert not answers(Pace(), 1000, QUICK_S * 1.01).quick


def test_who_was_wrong_has_to_earn_it_again() -> None:
    pace = answers(Pace(), 50, QUICK_S / 10)
    pace.wrong()
    assert not answers(pace, DISTRUST - 1, QUICK_S / 10).quick
    assert answers(pace, 1, QUICK_S / 10).quick
