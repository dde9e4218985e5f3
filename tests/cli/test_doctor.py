"""`lampyr doctor`: what holds on this machine, for people, for scripts, and as a condition."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from click.testing import CliRunner

from lampyr.cli.doctor import doctor
from lampyr.node import ends, isolation
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


def test_the_last_line_says_so_where_everything_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = dict.fromkeys(("memory", "pids", "cpu"), "not there")
    short = isolation.promises(Means().as_message(), missing, told=False)
    for found, holds in ((short, False), ([one._replace(holds=True, hint="") for one in short], True)):
        monkeypatch.setattr(isolation, "promises", lambda *_, found=found, **__: found)
        last = CliRunner().invoke(doctor, []).stdout.splitlines()[-1]
        assert (last == f"all {len(found)} promises hold on this machine") == holds, last


def test_strict_fails_exactly_when_something_falls_short() -> None:
    assert run("--strict").returncode == (0 if all(one["holds"] for one in promises()) else 1)


def test_loops_hold_where_the_kernel_tells_who_has_connected() -> None:
    loops = next(one for one in promises() if one["name"] == "loops")
    assert "508" in loops["promise"]
    assert loops["holds"] == ends.answers() == ("sock_diag" in loops["mechanism"])


@pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
def test_loops_fall_short_where_the_kernel_cannot_be_asked() -> None:
    """Every descriptor is taken: the socket to the kernel cannot be had."""
    code = """
        import os, resource
        from lampyr.node import ends
        assert ends.answers()
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 64))
        assert not ends.answers()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_on_a_machine_with_nothing_everything_falls_short_and_says_how_it_can_be_had() -> None:
    found = isolation.promises(Means().as_message(), dict.fromkeys(("memory", "pids", "cpu"), "not there"), told=False)
    holding = {one.name for one in found if one.holds}
    assert holding <= {"descriptors", "leaks"}
    assert all(one.hint for one in found if not one.holds)
