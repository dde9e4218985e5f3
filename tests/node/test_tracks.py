"""How many instances there are is said when it changes, and once a minute while there are any."""

from __future__ import annotations

import asyncio

import pytest

from lampyr.node import tracks
from lampyr.node.tracks import Tracks


def test_a_function_that_has_none_is_not_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "MINUTE_S", 0.05)
    said: list[tuple[str, int]] = []

    async def live() -> None:
        found = Tracks(asyncio.get_running_loop())
        found.told = lambda route, most: said.append((route, most))
        for route, by in (("/a", 1), ("/a", 1), ("/b", 1), ("/a", -1)):
            found.change(route, by)
        assert said == [("/a", 1), ("/a", 2), ("/b", 1), ("/a", 2)]
        said.clear()
        await asyncio.sleep(0.3)
        assert said.count(("/a", 1)) == said.count(("/b", 1)) >= 2 and len(set(said)) == 2
        found.change("/a", -1)
        found.change("/b", -1)
        said.clear()
        await asyncio.sleep(0.2)
        assert not said  # and nothing wakes an idle gateway

    asyncio.run(live())
