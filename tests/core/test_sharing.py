"""Which packages are imported once for several functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.core.sharing import WORTH_BYTES, can_serve, plan

HEAVY = {"openai": 10_000_000, "numpy": 30_000_000, "pandas": 60_000_000, "yaml": 300_000}


def of(**uses: str) -> dict[str, set[str]]:
    chosen = plan({route: frozenset(names.split()) for route, names in uses.items()}, HEAVY)
    return {route: set(packages) for route, packages in chosen.items()}


def test_functions_with_the_same_packages_share_them() -> None:
    assert of(a="openai", b="openai") == {"a": {"openai"}, "b": {"openai"}}


def test_nobody_gets_what_it_does_not_import() -> None:
    assert of(a="openai", b="openai pandas", c="") == {"a": {"openai"}, "b": {"openai"}, "c": set()}


def test_who_is_alone_with_its_packages_imports_them_itself() -> None:
    assert of(a="openai", b="pandas", c="numpy") == {"a": set(), "b": set(), "c": set()}


def test_the_heaviest_common_set_wins() -> None:
    chosen = of(a="numpy pandas", b="numpy pandas openai", c="numpy pandas openai", d="openai")
    assert chosen["b"] == chosen["c"] == {"numpy", "pandas", "openai"}
    assert chosen["d"] == set()


def test_small_packages_are_not_worth_a_process() -> None:
    assert of(a="yaml", b="yaml") == {"a": set(), "b": set()}


names = st.sampled_from(["a", "b", "c", "d", "e"])


@given(
    st.dictionaries(st.integers(0, 12).map(str), st.frozensets(names)),
    st.fixed_dictionaries({name: st.integers(0, 3 * WORTH_BYTES) for name in "abcde"}),
)
def test_every_share_is_used_and_shared(uses: dict[str, frozenset[str]], weights: dict[str, int]) -> None:
    chosen = plan(uses, weights)
    assert chosen.keys() == uses.keys()
    for route, packages in chosen.items():
        assert packages <= uses[route]
        if packages:
            assert sum(weights[one] for one in packages) >= WORTH_BYTES
            assert list(chosen.values()).count(packages) > 1


READY = {"ready": [], "threads": 1, "asked": ["PATH", "LANG"]}


@pytest.mark.parametrize(
    ("told", "private", "serves"),
    [
        (READY, ["KEY"], True),
        ({**READY, "asked": ["KEY"]}, ["KEY"], False),
        ({**READY, "asked": ["*"]}, ["KEY"], False),
        ({**READY, "asked": ["*"]}, [], True),
        ({**READY, "threads": 2}, [], False),
        ({**READY, "asked": [["KEY"], {"KEY": 1}]}, ["KEY"], True),
        ({**READY, "asked": "KEY"}, ["KEY"], False),
        ({"ready": [], "threads": 1}, [], False),
        ({"failed": {}}, [], False),
    ],
)
def test_who_may_stand_for_all(told: dict[str, object], private: list[str], serves: bool) -> None:
    assert can_serve(told, private) is serves
