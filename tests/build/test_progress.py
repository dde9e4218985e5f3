"""What a long command is at, where stderr is a file."""

from __future__ import annotations

import pytest
from serving import until

from lampyr.build.progress import Progress


def test_what_follows_within_a_second_is_shown_when_that_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    def last() -> str:
        shown.extend(capsys.readouterr().err.splitlines())
        return shown[-1]

    with Progress() as progress:
        progress.now_at("installing")
        assert last() == "lampyr: installing"
        progress.at("resolved")
        progress.at("building")
        until(lambda: last() == "lampyr: building", "the last line", context=shown)
    assert shown.count("lampyr: installing") == 1
