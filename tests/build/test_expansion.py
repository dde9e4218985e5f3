"""Variables in .env values, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.build.expansion import LoopError, expand_all

GIVEN = {"HOST": "example.org", "EMPTY": "", "DOLLAR": "$HOST", "P1": "one"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$HOST", "example.org"),
        ("${HOST}", "example.org"),
        ("https://$HOST:80/${P1}x", "https://example.org:80/onex"),
        ("$HOST$HOST", "example.orgexample.org"),
        ("\\$HOST", "$HOST"),
        ("\\${HOST}", "${HOST}"),
        ("$P1x", ""),
        ("${NONE}", ""),
        ("${NONE:-default}", "default"),
        ("${NONE-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY-default}", ""),
        ("${HOST:-default}", "example.org"),
        ("${NONE:-}", ""),
        ("${NONE:-$HOST}", "example.org"),
        ("${NONE:-${ALSO_NONE:-${HOST}}}!", "example.org!"),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NONE:-\\}}", "\\}"),
        ("$DOLLAR", "$HOST"),
        ("price: 5$", "price: 5$"),
        ("$5 and $$", "$5 and $$"),
        ("$(command)", "$(command)"),
        ("${}", "${}"),
        ("${not-closed", "${not-closed"),
        ("${HOST", "${HOST"),
        ("${bad name}", "${bad name}"),
        ("%HOST% {HOST}", "%HOST% {HOST}"),
    ],
)
def test_expansion(value: str, expected: str) -> None:
    assert expand_all({"A": value}, GIVEN)[0] == {"A": expected}


def test_order_does_not_matter() -> None:
    values, _ = expand_all({"A": "$B/a", "B": "$C/b", "C": "c"}, {})
    assert values == {"A": "c/b/a", "B": "c/b", "C": "c"}


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ({"A": "$A"}, ("A", "A")),
        ({"A": "${A:-x}"}, ("A", "A")),
        ({"A": "$B", "B": "x${C}", "C": "$A"}, ("A", "B", "C", "A")),
        ({"START": "$A", "A": "$B", "B": "$A"}, ("A", "B", "A")),
    ],
)
def test_circles(raw: dict[str, str], names: tuple[str, ...]) -> None:
    with pytest.raises(LoopError) as error:
        expand_all(raw, {})
    assert error.value.names == names


def test_a_very_long_chain_ends() -> None:
    with pytest.raises(LoopError):
        expand_all({f"V{number}": f"$V{number + 1}" for number in range(5000)}, {})


@pytest.mark.parametrize(
    ("value", "dangling"),
    [("$NONE", True), ("${NONE}", True), ("${NONE:-x}", False), ("\\$NONE", False), ("$HOST", False)],
)
def test_who_refers_to_nothing(value: str, dangling: bool) -> None:
    assert ("A" in expand_all({"A": value}, GIVEN)[1]) == dangling


@given(st.text(alphabet="${}:-AB\\ ", max_size=30))
def test_no_text_is_too_strange(value: str) -> None:
    try:
        values, _ = expand_all({"A": value}, {"B": "b"})
    except LoopError:
        return
    if "$" not in value:
        assert values["A"] == value


@given(st.text(max_size=30))
def test_escaping_every_dollar_keeps_a_value(value: str) -> None:
    assert expand_all({"A": value.replace("$", "\\$")}, {})[0]["A"] == value
