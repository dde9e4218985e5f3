"""`lampyr ps --watch`: what it draws, and how it ends."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from serving import until

from lampyr.cli import watching

if TYPE_CHECKING:
    from serving import Serve


def instance(state: str, in_flight: int = 0) -> dict[str, Any]:
    return {"id": "1", "pid": 1, "state": state, "in_flight": in_flight, "memory_mb": 2.5}


def function(
    route: str, *instances: dict[str, Any], snapshot: str = "ready", deployment: str = "f8c6b17ab35e"
) -> dict[str, Any]:
    facts = {"function": route, "runtime": "edge", "deployment": deployment, "snapshot": snapshot, "waiting": 0}
    return {**facts, "instances": list(instances)}


def drawn(*functions: dict[str, Any]) -> str:
    console = Console(width=100, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(watching.view({"functions": list(functions)}))
    return captured.get()


def test_each_instance_has_a_lamp() -> None:
    text = drawn(function("/api/[id]", instance("idle"), instance("busy", 3)), function("/dark"))
    assert "1 of 2 functions lit, 2 instances, 3 in flight" in text
    assert "/api/[id]" in text and "● ●" in text and "5.0 MB" in text and "○ snapshot ready" in text


def test_more_lamps_than_fit_are_a_number() -> None:
    assert "+10" in drawn(function("/a", *[instance("idle") for _ in range(watching.MAX_LAMPS + 10)]))


def test_where_nobody_calls_it_is_dark() -> None:
    assert "Dark. Nobody is calling" in drawn(function("/a", snapshot="absent"))


def test_a_preview_is_told_from_what_serves() -> None:
    text = drawn(function("/a"), function("/a", deployment="e917abeea4b0"))
    assert "DEPLOYMENT" in text and "f8c6b17ab35e" in text and "e917abeea4b0" in text
    assert "f8c6b17ab35e" not in drawn(function("/a")) and "edge" in drawn(function("/a"))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals like this")
def test_a_person_sees_it_change_and_leaves_with_ctrl_c(serve: Serve) -> None:
    server = serve({"app/api/hello/route.py": "def GET(): return 'hi'"})
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lampyr", "ps", "--watch", str(server.root)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = b""

    def read(wanted: str) -> bool:
        nonlocal seen
        try:
            seen += os.read(ours, 65536)
        except (BlockingIOError, OSError):
            time.sleep(0.02)
        return wanted in seen.decode(errors="replace")

    until(lambda: read("Nobody is calling"), "the dark")
    server.get("/api/hello")
    until(lambda: read("1 of 1 functions lit"), "the light")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    os.close(ours)


def test_watching_is_for_people(serve: Serve) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lampyr", "ps", "--watch", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "--watch is for people" in done.stderr
