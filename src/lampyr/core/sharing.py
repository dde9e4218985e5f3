"""Which packages are imported once for several functions: every function has at most one shared snapshot."""

from __future__ import annotations

from collections.abc import Collection, Mapping

# Packages that weigh less than this cost a process of their own more than they save.
WORTH_BYTES = 1_000_000


def plan(uses: Mapping[str, frozenset[str]], weights: Mapping[str, int]) -> dict[str, frozenset[str]]:
    """For each function the packages it shares, all of which it uses; the empty set where nobody shares any with it.

    `uses` are the packages by function, `weights` bytes by package. Sets that at least two functions have in common are
    the candidates; every function takes the heaviest, and what only one has taken is given up again.
    """
    sets = {route: frozenset(one for one in used if weights.get(one, 0)) for route, used in uses.items()}
    distinct = list(dict.fromkeys(sets.values()))
    repeated = {one for one in distinct if list(sets.values()).count(one) > 1}
    common = {one & other for index, one in enumerate(distinct) for other in distinct[index + 1 :]}
    candidates = {one for one in repeated | common if _weight(one, weights) >= WORTH_BYTES}
    while True:
        chosen = {route: _best(used, candidates, weights) for route, used in sets.items()}
        lonely = {one for one in candidates if list(chosen.values()).count(one) == 1}
        if not lonely:
            return chosen
        candidates -= {min(lonely, key=lambda one: (_weight(one, weights), sorted(one)))}


def can_serve(told: Mapping[str, object], private: Collection[str]) -> bool:
    """Whether a process that has imported packages may stand for all functions that use them.

    Not where a package asked for a variable that is `private` to functions: each has to import it with its own. `told`
    is what the process says (runtime/shared.py), and the packages run in it, so nothing is believed of its shape.
    """
    asked = told.get("asked")
    if "ready" not in told or told.get("threads") != 1 or not isinstance(asked, list):
        return False
    return not private or {"*", *private}.isdisjoint(str(name) for name in asked)


def _weight(packages: frozenset[str], weights: Mapping[str, int]) -> int:
    return sum(weights[one] for one in packages)


def _best(used: frozenset[str], candidates: set[frozenset[str]], weights: Mapping[str, int]) -> frozenset[str]:
    fitting = [one for one in candidates if one <= used]
    return max(fitting, key=lambda one: (_weight(one, weights), sorted(one)), default=frozenset())
