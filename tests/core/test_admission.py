"""A rate for each client: the whole allowance at once, never more, and back one at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lampyr.core.admission import MAX_CLIENTS, Rate, client

REQUESTS = st.integers(1, 300)
PERIODS_S = st.sampled_from([1, 60, 3600, 86400])
NOWS_S = st.floats(0, 1e9)


@given(requests=REQUESTS, period_s=PERIODS_S, now_s=NOWS_S)
def test_the_whole_allowance_may_be_used_at_once_and_not_one_more(requests: int, period_s: int, now_s: float) -> None:
    rate = Rate(requests, period_s)
    assert [rate.wait_s("a", now_s) for _ in range(requests)] == [0.0] * requests
    wait_s = rate.wait_s("a", now_s)
    assert abs(wait_s - period_s / requests) < 1e-6 * period_s
    assert rate.wait_s("b", now_s) == 0


@given(requests=REQUESTS, period_s=PERIODS_S, now_s=st.floats(0, 1e6))
def test_who_waits_as_long_as_told_is_admitted_and_who_does_not_is_not(
    requests: int, period_s: int, now_s: float
) -> None:
    rate = Rate(requests, period_s)
    while not (wait_s := rate.wait_s("a", now_s)):
        pass
    assert rate.wait_s("a", now_s + wait_s * 0.9 - 2e-6) > 0
    assert rate.wait_s("a", now_s + wait_s + 2e-6) == 0


@given(requests=REQUESTS, period_s=PERIODS_S, pauses_s=st.lists(st.floats(0, 100), max_size=200))
def test_never_more_than_the_allowance_and_what_came_back(requests: int, period_s: int, pauses_s: list[float]) -> None:
    rate, now_s, admitted = Rate(requests, period_s), 0.0, 0
    for pause_s in pauses_s:
        now_s += pause_s
        admitted += rate.wait_s("a", now_s) == 0
        assert admitted <= requests + now_s * requests / period_s + 1e-6


def test_a_refused_request_does_not_count() -> None:
    rate = Rate(2, 1)
    assert [rate.wait_s("a", 0.0) > 0 for _ in range(50)] == [False, False, *[True] * 48]
    assert rate.wait_s("a", 0.5) == 0


def test_a_flood_of_clients_takes_bounded_memory_and_sets_nobody_free() -> None:
    rate = Rate(3, 3600)
    for _ in range(3):
        rate.wait_s("busy", 1.0)
    for number in range(3 * MAX_CLIENTS):
        assert rate.wait_s(str(number), 2.0) == 0
        assert len(rate) <= MAX_CLIENTS + 1
    assert rate.wait_s("busy", 2.0) > 0


def test_clients_that_used_nothing_lately_are_forgotten() -> None:
    rate = Rate(3, 1)
    for number in range(MAX_CLIENTS):
        rate.wait_s(str(number), 0.0)
    rate.wait_s("new", 10.0)
    assert len(rate) == 1


def test_one_subscriber_is_one_client() -> None:
    assert client("203.0.113.9") == "203.0.113.9"
    assert client("2001:db8:1:2::1") == client("2001:db8:1:2:ffff::9")
    assert client("2001:db8:1:2::1") != client("2001:db8:1:3::1")
    assert client("::ffff:203.0.113.9") != client("::ffff:203.0.113.8")
    assert client("fe80::1%eth0") == client("fe80::2")
