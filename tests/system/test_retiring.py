"""Instances that were told to leave: what they answer on their way out reaches its client, whatever is heard first."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from serving import Serve, Server, until

from lampyr.node import hierarchy

needs_groups = pytest.mark.skipif("memory" not in hierarchy.find()[0], reason="no control group for memory here")

# Answers with `size` bytes as soon as there is a file `go`.
HELD = """
    import asyncio, pathlib
    SETTINGS

    async def GET(req):
        while not (pathlib.Path(__file__).parent / req.query["go"]).exists():
            await asyncio.sleep(0.005)
        return b"x" * int(req.query["size"])
"""
RUNTIMES = pytest.mark.parametrize("settings", ["", "runtime = 'edge'\n    concurrency = 2"], ids=["standard", "edge"])


class Replaced:
    """Calls held in instances of a deployment that another one has replaced since; `pids` are these instances."""

    def __init__(self, serve: Serve, settings: str, *queries: str) -> None:
        self.server = serve({"app/held/route.py": HELD.replace("SETTINGS", settings)}, command="dev")
        self.calls = []
        for count, query in enumerate(queries, 1):
            self.calls.append(ask(self.server, f"/held?{query}"))
            until(lambda count=count: self._running() == count, "the call to begin")
        self.pids = [one["pid"] for row in self.server.rows() for one in row["instances"] if one["in_flight"]]
        self.server.write("app/held/route.py", "def GET(): return 'new'\n")
        assert self.server.get("/held").body == b"new"

    def _running(self) -> int:
        return sum(one["in_flight"] for row in self.server.rows() for one in row["instances"])

    def go(self, name: str) -> None:
        (self.server.root / "app/held" / name).touch()

    def gone(self, count: int) -> None:
        """Wait until so many of the instances have ended, and their snapshot has told of it."""
        until(lambda: sum(not psutil.pid_exists(pid) for pid in self.pids) == count, f"{count} to have ended")
        time.sleep(0.1)


def ask(server: Server, target: str) -> socket.socket:
    sock = server.connect()
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return sock


def answer(sock: socket.socket) -> tuple[int, int]:
    """The status and how many bytes came after the head."""
    with sock, sock.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), len(body)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The gateway stands still, as on a machine that is too busy to run it."""
    gateway = server.find("lampyr.gateway")
    gateway.suspend()
    try:
        yield
    finally:
        gateway.resume()


@RUNTIMES
def test_an_end_that_is_heard_before_the_last_answer_does_not_lose_it(serve: Serve, settings: str) -> None:
    """The snapshot tells of two ends at once, after the first and before the second has been noticed otherwise."""
    replaced = Replaced(serve, settings, "go=a&size=9", "go=a&size=9", "go=b&size=9")
    with stopped(replaced.server):
        replaced.go("b")
        replaced.gone(1)
        replaced.go("a")
        replaced.gone(len(replaced.pids))
    assert [answer(call) for call in replaced.calls] == [(200, 9)] * 3, replaced.server.lines


@RUNTIMES
def test_an_answer_larger_than_the_socket_leaves_before_its_process(serve: Serve, settings: str) -> None:
    replaced = Replaced(serve, settings, "go=a&size=262144")
    with stopped(replaced.server):
        replaced.go("a")
        time.sleep(0.3)
    assert [answer(call) for call in replaced.calls] == [(200, 262_144)], replaced.server.lines
    replaced.gone(1)


def test_a_replaced_function_that_nobody_waits_for_any_more_is_gone(serve: Serve) -> None:
    """Its only client leaves while it is still being imported."""
    server = serve(
        {
            "app/slow/route.py": """
                import pathlib, time
                print("begun", flush=True)
                while not (pathlib.Path(__file__).parent / "go").exists():
                    time.sleep(0.01)
                def GET(): return "old"
            """
        },
        command="dev",
    )
    waiting = ask(server, "/slow")
    server.log("begun")
    server.write("app/slow/route.py", "def GET(): return 'new'\n")
    assert server.get("/slow").body == b"new" and len(server.rows()) == 2
    waiting.close()
    (server.root / "app/slow/go").touch()
    until(lambda: len(server.rows()) == 1, "the old one to be gone")


@needs_groups
def test_who_was_told_to_leave_and_is_ended_for_memory_is_answered_507(serve: Serve) -> None:
    """An instance that has grown is followed by another one, once a second, and goes on growing."""
    server = serve(
        {
            "app/grows/route.py": """
                import asyncio
                memory = 64
                runtime = "edge"

                async def GET():
                    keep = []
                    while True:
                        keep.append(bytearray(b"x" * (1 << 20)))
                        await asyncio.sleep(0.01 if len(keep) < 54 else 0.4)
            """
        }
    )
    assert server.get("/grows").error == "FUNCTION_OUT_OF_MEMORY"
    server.log("an instance is followed by another one: it uses")
    server.log("the process ended: it needed more memory than it may use")


def test_one_that_died_in_a_call_did_not_end_because_it_was_told_to_leave(serve: Serve) -> None:
    server = serve(
        {
            "app/held/route.py": """
                import os, pathlib, time

                def GET():
                    while not (pathlib.Path(__file__).parent / "go").exists():
                        time.sleep(0.005)
                    os._exit(3)
            """
        },
        command="dev",
    )
    call = ask(server, "/held")
    until(lambda: sum(one["in_flight"] for row in server.rows() for one in row["instances"]) == 1, "the call to begin")
    server.write("app/held/route.py", "def GET(): return 'new'\n")
    assert server.get("/held").body == b"new"
    (server.root / "app/held/go").touch()
    assert answer(call)[0] == 502
    server.log(r"the process (ended|exited with status 3)$")  # who would say how may have been let go by then
