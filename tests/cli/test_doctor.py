"""`lampyr doctor`: what holds on this machine, for people, for scripts, and as a condition."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from lampyr.node import isolation
from lampyr.runtime.sandbox import Means


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lampyr", "doctor", *arguments], capture_output=True, text=True)


def promises() -> list[dict[str, Any]]:
    return list(json.loads(run("--json").stdout))


def test_what_doctor_says() -> None:
    found = promises()
    assert len(found) > 10
    for one in found:
        assert {"promise", "mechanism", "holds", "hint"} <= set(one)
        assert one["promise"] and one["mechanism"]
        assert bool(one["hint"]) == (not one["holds"])


def test_for_people_every_promise_is_there() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert all(one["promise"] in done.stdout and one["mechanism"] in done.stdout for one in promises())


def test_strict_fails_exactly_when_something_falls_short() -> None:
    assert run("--strict").returncode == (0 if all(one["holds"] for one in promises()) else 1)


def test_on_a_machine_with_nothing_everything_falls_short_and_says_how_it_can_be_had() -> None:
    found = isolation.promises(Means().as_message(), dict.fromkeys(("memory", "pids", "cpu"), "not there"))
    holding = {one.name for one in found if one.holds}
    assert holding <= {"descriptors", "leaks"}
    assert all(one.hint for one in found if not one.holds)
