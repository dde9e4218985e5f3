"""When a request may wait behind another one."""

from __future__ import annotations

from lampyr.core.pace import TRUST_AFTER, TRUST_AGAIN_AFTER, Pace


def answers(pace: Pace, count: int, quick: bool = True) -> Pace:
    for _ in range(count):
        pace.answered(quick)
    return pace


def test_a_function_nobody_knows_is_not_quick() -> None:
    assert not Pace().quick


def test_quick_answers_make_it_quick_and_one_slow_ends_that() -> None:
    pace = answers(Pace(), TRUST_AFTER)
    assert pace.quick
    assert not answers(pace, 1, quick=False).quick
    assert answers(pace, TRUST_AFTER).quick


def test_who_was_wrong_has_to_earn_it_for_longer_whatever_comes_between() -> None:
    pace = answers(Pace(), TRUST_AFTER)
    pace.wrong()
    answers(pace, 1, quick=False)
    assert not answers(pace, TRUST_AGAIN_AFTER - 1).quick
    assert answers(pace, 1).quick
