"""Budgets of tokens and dollars: reserved before a call, settled after it, and never set back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lampyr.broker import budgets
from lampyr.broker.budgets import Amount, Purses
from lampyr.broker.desk import Refused
from lampyr.ledger.counters import Counters


def purses(folder: Path, project: tuple[str, ...] = (), **own: str) -> Purses:
    found = Purses(Counters(folder / "budgets", print))
    found.told(project, {f"/{name}": text for name, text in own.items()} | {"/plain": None})
    return found


async def call(found: Purses, most: float, used: float, route: str = "/a") -> bool:
    """A call that takes a while; False where it is refused."""
    try:
        kept = await found.reserve(route, Amount(most, 0.0))
    except Refused as refused:
        assert (refused.status, refused.code) == (429, "BUDGET_EXCEEDED")
        return False
    await asyncio.sleep(0.01)
    kept.settle(Amount(used, 0.0))
    return True


@pytest.mark.parametrize("most", [100, 115, 1024, 10], ids=lambda most: f"reserving {most}")
def test_of_fifty_at_once_ten_are_made(tmp_path: Path, most: int) -> None:
    """Whatever each has guessed that it will use: 100."""
    found = purses(tmp_path, a="1000 tokens/month")

    async def all_at_once() -> int:
        if most < 100:  # who says less than it uses is caught by the first that settle
            return 10 if sum([await call(found, most, 100) for _ in range(50)]) == 10 else 0
        return sum(await asyncio.gather(*(call(found, most, 100) for _ in range(50))))

    assert asyncio.run(all_at_once()) == 10


def test_what_is_reserved_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "WAIT_S", 0.05)

    async def made() -> list[bool]:
        found = purses(tmp_path, ("300 tokens/month",), a="none", b="100 tokens/day")
        kept = await found.reserve("/a", Amount(250, 0.0))
        first = [await call(found, 40, 40, "/b"), await call(found, 40, 10, "/b"), await call(found, 9, 9, "/plain")]
        kept.settle(Amount(200, 0.0))
        return [*first, await call(found, 9, 9, "/plain"), await call(found, 99, 99, "/b")]

    # Of the project's 10 that are left /b's second call may need more; what /a gives back is everybody's again.
    assert asyncio.run(made()) == [True, False, True, True, True]


def test_what_was_reserved_by_who_was_killed_is_used(tmp_path: Path) -> None:
    async def made() -> tuple[bool, bool]:
        await purses(tmp_path, a="100 tokens/month").reserve("/a", Amount(60, 0.0))  # and never settled
        again = purses(tmp_path, a="100 tokens/month")
        return await call(again, 40, 40), await call(again, 40, 40)

    assert asyncio.run(made()) == (True, False)


def test_a_new_budget_knows_what_was_used(tmp_path: Path) -> None:
    async def made() -> tuple[bool, bool, bool]:
        found = purses(tmp_path, a="100 tokens/month")
        first = await call(found, 100, 100), await call(found, 1, 1)
        found.told((), {"/a": "200 tokens/month"})
        return *first, await call(found, 1, 1)

    assert asyncio.run(made()) == (True, False, True)


def test_dollars(tmp_path: Path) -> None:
    async def made() -> list[float]:
        found = purses(tmp_path, a="1 USD/month")
        kept = []
        for _ in range(10):
            (await found.reserve("/a", Amount(1e6, 0.1))).settle(Amount(1e6, 0.1))
            kept.append(0.1)
        with pytest.raises(Refused):
            await found.reserve("/a", Amount(1.0, 0.1))
        return kept

    assert len(asyncio.run(made())) == 10


def test_a_refusal_says_what_is_spent_and_until_when(tmp_path: Path) -> None:
    async def refused() -> Refused:
        found = purses(tmp_path, a="100 tokens/hour")
        await call(found, 100, 100)
        with pytest.raises(Refused) as caught:
            await found.reserve("/a", Amount(1, 0.0))
        return caught.value

    said = asyncio.run(refused())
    assert said.message == "The budget of this function, 100 tokens/hour, is spent."
    assert 1 <= int(dict(said.headers)[b"retry-after"]) <= 3600
