"""`lampyr ps` as a person sees it."""

from __future__ import annotations

from typing import Any

import pytest

from lampyr.cli import ps as command
from lampyr.cli import terminal


def function(deployment: str) -> dict[str, Any]:
    one = {"id": "13", "pid": 4194304, "state": "starting", "in_flight": 100, "memory_mb": 1023.5}
    facts = {"function": "/api/chat/[id]", "runtime": "standard", "deployment": deployment}
    return {**facts, "snapshot": "absent", "parked": None, "instances": [one]}


@pytest.mark.parametrize("columns", [80, 120])
def test_previews_are_told_from_what_serves_in_a_terminal_of_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "width", lambda: columns)
    command._show([function("f8c6b17ab35e"), function("e917abeea4b0")])
    text = capsys.readouterr().out
    assert "f8c6b17ab35e" in text and "e917abeea4b0" in text
    assert max(map(len, text.splitlines())) <= columns
