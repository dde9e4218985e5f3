"""`lampyr usage` as a person sees it."""

from __future__ import annotations

import pytest

from lampyr.cli import terminal
from lampyr.cli import usage as command
from lampyr.ledger.tally import SUMS


@pytest.mark.parametrize("columns", [60, 79, 80, 200])
@pytest.mark.parametrize("spent", [{}, {"calls": 9, "cost_usd": 185_247.56, "tokens_in": 98_765_432_100}])
def test_a_row_keeps_its_name_in_a_narrow_terminal(
    columns: int, spent: dict[str, float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "width", lambda: columns)
    sums = dict.fromkeys(SUMS, 0)
    group = {"function": "/api/own", **sums, "invocations": 1234567, "billed_ms": 40_000.0, "gb_s": 2.01, **spent}
    found = {"groups": [group], "total": group, "since": None}
    command._show("function", found)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FUNCTION", "/api/own", "total"]
    assert max(map(len, lines)) <= columns
