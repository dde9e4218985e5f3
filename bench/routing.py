"""How long the router takes to decide, for 1, 100 and 1,000 functions: `python bench/routing.py`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter_ns

from lampyr.core.routing import Router
from lampyr.core.segments import public_name
from lampyr.types import Function, Settings

_CALLS = 2000
_ROUNDS = 15
_KINDS = ("api/v1/item{}/list", "api/v1/item{}/[id]", "api/v2/area{}/[id]/parts/[part]", "docs/part{}/[[...all]]")


def _function(folders: str) -> Function:
    parts = tuple(folders.split("/"))
    return Function(
        route=public_name(parts), parts=parts, file=Path(), methods=("GET",), asgi=False, settings=Settings()
    )


def _router(count: int) -> Router:
    return Router([_function(_KINDS[number % len(_KINDS)].format(number)) for number in range(count)])


def _microseconds(router: Router, targets: list[str], forget: bool) -> float:
    """The median over rounds of one call's time; `forget` empties the memory of answers between calls."""
    rounds = []
    for _ in range(_ROUNDS):
        spent = 0
        for index in range(_CALLS):
            if forget:
                router._matches.clear()
            target = targets[index % len(targets)]
            start = perf_counter_ns()
            router.resolve(target)
            spent += perf_counter_ns() - start
        rounds.append(spent / _CALLS / 1000)
    return median(rounds)


def _clock_cost() -> float:
    rounds = []
    for _ in range(_ROUNDS):
        spent = 0
        for _ in range(_CALLS):
            start = perf_counter_ns()
            spent += perf_counter_ns() - start
        rounds.append(spent / _CALLS / 1000)
    return median(rounds)


def main() -> None:
    """Print the table."""
    clock = _clock_cost()
    print("time of one decision in µs, median of rounds, less the clock's own", f"{clock:.2f}")
    print(
        f"{'functions':>9}  {'known':>6}  {'known?query':>11}  {'static':>6}  {'[id]':>6}  {'catch-all':>9}  {'404':>6}"
    )
    for count in (1, 100, 1000):
        router = _router(max(count, 1))
        static, deep = "/api/v1/item0/list", "/docs/part3/a/b"
        dynamic = "/api/v1/item1/77" if count > 1 else static
        known = [static]
        figures = (
            _microseconds(router, known, False),
            _microseconds(router, [static + "?q=1"], False),
            _microseconds(router, known, True),
            _microseconds(router, [dynamic], True),
            _microseconds(router, [deep if count > 1 else static], True),
            _microseconds(router, ["/nothing/here"], False),
        )
        cells = [f"{figure - clock:.2f}" for figure in figures]
        print(
            f"{count:>9}  "
            + "  ".join(cell.rjust(width) for cell, width in zip(cells, (6, 11, 6, 6, 9, 6), strict=True))
        )


if __name__ == "__main__":
    main()
