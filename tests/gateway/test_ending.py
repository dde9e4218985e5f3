"""How long a process has to come to its stack when its handler is over time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lampyr.gateway import ending
from lampyr.gateway.ending import STARVED_MOST, Ending

# Who waits for a core cannot be made without loading the machine, so instance and meter are the test's own.
pytestmark = pytest.mark.skipif(ending.__file__.endswith(".so"), reason="compiled, an Ending takes no others")


@pytest.mark.parametrize(
    ("starves", "speaks_at", "looks"),
    [(False, None, 2), (True, None, STARVED_MOST + 1), (True, 4, 4), (False, 1, 1)],
    ids=["who has a core", "who has none", "who has none and then speaks", "who speaks"],
)
def test_who_has_no_core_may_take_longer_but_not_for_ever(starves: bool, speaks_at: int | None, looks: int) -> None:
    """`looks`: how often it is looked at, one grace after the other, until it is given up."""

    async def given_up() -> int:
        over, looked = asyncio.Event(), 0

        def has_spoken() -> bool:
            nonlocal looked
            looked += 1
            return looked == speaks_at

        instance: Any = SimpleNamespace(
            send=lambda frame: None, doubt=lambda: None, listen=lambda: None, print_stack=lambda: None,
            has_spoken=has_spoken, meter=SimpleNamespace(starves=lambda used_s, since_ns: starves, clock_ns=lambda: 0),
            give_up=lambda stream, why: over.set(),
        )  # fmt: skip
        call: Any = SimpleNamespace(close_row=lambda: None)
        told = Ending(call, instance, 1, asyncio.get_running_loop(), deadline=True)
        await asyncio.wait_for(over.wait(), 40)
        told._kill_timer.cancel()
        if told._stack is not None:
            told._stack.cancel()
        return looked if speaks_at else looked + 1

    assert asyncio.run(given_up()) == looks
