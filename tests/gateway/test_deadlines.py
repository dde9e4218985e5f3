"""One timer for the deadlines of many calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lampyr.gateway.deadlines import Deadlines


class Call:
    def __init__(
        self, seen: list[str], name: str, fails: bool = False, ends: tuple[Deadlines, Any] | None = None
    ) -> None:
        self._seen, self._name, self._fails, self._ends = seen, name, fails, ends

    def expire(self) -> None:
        self._seen.append(self._name)
        if self._ends is not None:
            self._ends[0].drop(self._ends[1])
        if self._fails:
            raise RuntimeError("a fault of ours")


def run(limit_s: float | None, *plan: Any) -> list[str]:
    """Add calls (name, after how many seconds, fails), wait, and return the names in the order of their ends."""

    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        loop.set_exception_handler(lambda *_: None)
        deadlines: Any = Deadlines(loop, limit_s)
        for name, wait_s, fails in plan:
            await asyncio.sleep(wait_s)
            deadlines.add(Call(seen, name, fails))
        await asyncio.sleep((limit_s or 0.05) * 3)
        return seen

    return asyncio.run(main())


def test_each_has_its_own_end() -> None:
    assert run(0.05, ("a", 0, False), ("b", 0.02, False), ("c", 0.03, False)) == ["a", "b", "c"]


def test_a_fault_in_one_takes_no_deadline_from_the_others() -> None:
    assert run(0.05, ("a", 0, True), ("b", 0, False), ("c", 0.02, False)) == ["a", "b", "c"]


def test_without_a_limit_nothing_ends() -> None:
    assert run(None, ("a", 0, False)) == []


@pytest.mark.parametrize("dropped", [True, False])
def test_who_has_ended_is_not_told(dropped: bool) -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        deadlines: Any = Deadlines(loop, 0.03)
        second: Any = Call(seen, "second")
        deadlines.add(Call(seen, "first", ends=(deadlines, second) if dropped else None))
        deadlines.add(second)
        await asyncio.sleep(0.1)
        return seen

    assert asyncio.run(main()) == (["first"] if dropped else ["first", "second"])
