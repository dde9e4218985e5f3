"""Where the system has no descriptor or process left: a clear refusal, no leak, and all is well when there is room."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from serving import Answer, Serve, Server, settled, until

from lampyr.runtime import sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes can be set on Linux only")

ROUTES = {
    "app/warm/route.py": """
        runtime = "edge"

        def GET():
            return "warm"
    """,
    "app/slow/route.py": """
        import time

        def GET(req):
            time.sleep(float(req.query.get("s", "0")))
            return "slow"
    """,
    "app/other/route.py": """
        def GET():
            return "other"
    """,
}


SAVED = "def GET(): return 'slow'\n"


def descriptors(process: psutil.Process) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{process.pid}/fd/{fd}").partition(":")[0])
        except FileNotFoundError:
            continue
    return sorted(found)


@contextmanager
def only(process: psutil.Process, spare: int) -> Iterator[None]:
    """While this lasts the process can have so many descriptors more: it gets the lowest number that is free."""
    settled(lambda: descriptors(process))  # what is on its way has come or gone
    numbers = {int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")}
    free = [number for number in range(max(numbers) + 100) if number not in numbers]
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free[spare], before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


def check_throttled(answer: Answer) -> None:
    assert (answer.status, answer.error) == (503, "FUNCTION_THROTTLED"), (answer.status, answer.body)
    assert int(answer.headers["retry-after"]) >= 1


def no_traceback(server: Server) -> None:
    assert not [line for line in server.lines if "Traceback" in line or ("rror:" in line and "lampyr: " not in line)]


# One is the connection; an instance takes six for a moment, and its pidfd.
@pytest.mark.parametrize("spare", range(3, 7))
def test_a_gateway_without_descriptors_refuses_and_recovers(serve: Serve, spare: int) -> None:
    server = serve(ROUTES, command="start")
    assert server.get("/warm").body == b"warm"
    gateway = server.find("lampyr.gateway")
    before = settled(lambda: descriptors(gateway))
    instances = settled(lambda: len(server.processes()))
    with only(gateway, spare):
        for _ in range(3):
            check_throttled(server.get("/slow"))
            assert server.get("/warm").body == b"warm"
    server.log(r"^lampyr: error: /slow: no instance can be started: .*\nhint: raise the limit of open files")
    until(lambda: descriptors(gateway) == before, "nothing to be left", context=(before, descriptors(gateway)))
    until(lambda: len(server.processes()) == instances, "no process to be left")
    until(lambda: server.get("/slow").status == 200, "the function to be back")
    assert server.find("lampyr.gateway").pid == gateway.pid
    no_traceback(server)


@pytest.mark.parametrize("spare", range(3, 8))
def test_a_gateway_without_descriptors_for_an_import(serve: Serve, spare: int) -> None:
    """In development functions are imported when they are called."""
    server = serve(ROUTES, command="dev")
    assert server.get("/warm").body == b"warm"
    gateway = server.find("lampyr.gateway")
    before = descriptors(gateway)
    with only(gateway, spare):
        server.write("app/slow/route.py", SAVED)  # which is imported before somebody asks for it
        answer = server.get("/slow")
        if answer.status != 200:
            check_throttled(answer)
    assert server.get("/warm").body == b"warm"
    until(lambda: server.get("/slow").status == 200, "the function to be back")
    assert server.get("/other").status == 200
    assert server.find("lampyr.gateway").pid == gateway.pid
    if answer.status != 200:
        server.log(
            r"^lampyr: error: /slow: .*(no instance can be started|the server cannot make its process): .*\nhint:"
        )
    no_traceback(server)
    assert len(descriptors(gateway)) <= len(before) + 2 * 10  # two more snapshots, two more instances


def listed(server: Server, route: str) -> dict[str, Any]:
    """What `lampyr ps` says of it."""
    rows = server.rows()
    return next(row for row in rows if row["function"] == route)


def in_flight(server: Server, route: str) -> int:
    return sum(one["in_flight"] for one in listed(server, route)["instances"])


def test_who_waits_for_an_instance_that_runs_is_served_by_it(serve: Serve) -> None:
    server = serve(ROUTES, command="start")
    first: list[Answer] = []
    thread = threading.Thread(target=lambda: first.append(server.get("/slow?s=4")))
    thread.start()
    until(lambda: in_flight(server, "/slow"), "the first one to run")
    gateway = server.find("lampyr.gateway")
    with only(gateway, 2):
        assert server.get("/slow").body == b"slow"
    thread.join()
    assert first[0].body == b"slow"
    no_traceback(server)


@pytest.mark.parametrize("spare", range(3, 7))
def test_what_is_parked_goes_before_anybody_is_refused(serve: Serve, spare: int) -> None:
    brief = 'idle_timeout = 0.05\nrate_limit = "none"\ndef GET(): return "brief"'
    server = serve({**ROUTES, "app/brief/route.py": brief}, command="start")
    for _ in range(3):
        assert server.get("/brief").status == 200
        until(lambda: not listed(server, "/brief")["instances"], "no instance")
        time.sleep(1.5)  # after which one is kept for twice as long
    until(lambda: listed(server, "/brief")["parked"], "a parked process")
    with only(server.find("lampyr.gateway"), spare):
        assert server.get("/slow").body == b"slow"
    assert not listed(server, "/brief")["parked"]
    assert not [line for line in server.lines if "no instance can be started" in line]
    no_traceback(server)


def bound(process: psutil.Process, limit: int, soft: int) -> int:
    """Set a limit of a process as its own user may; returns what it was."""
    name = "Max open files" if limit == resource.RLIMIT_NOFILE else "Max processes"
    text = Path(f"/proc/{process.pid}/limits").read_text().split(name)[1]
    before, most = (resource.RLIM_INFINITY if one == "unlimited" else int(one) for one in text.split()[:2])
    user = process.uids().real
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            resource.prlimit(process.pid, limit, (soft, most))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return before


def forkers(server: Server) -> list[psutil.Process]:
    """The snapshots of functions, which have their own user ids."""
    base = server.find("lampyr.runtime.snapshot")
    settled(lambda: len(server.processes()))  # those that have proved its health have left
    return [one for one in base.children(recursive=True) if one.uids().real != os.geteuid()]


@pytest.mark.skipif(not sandbox.find().users, reason="functions have no user ids of their own here")
@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC], ids=["descriptors", "processes"])
def test_a_snapshot_that_cannot_fork(serve: Serve, limit: int) -> None:
    server = serve(ROUTES, command="start")
    assert server.get("/warm").body == b"warm"
    low = 1 if limit == resource.RLIMIT_NPROC else 4  # its standard streams and its channel
    before = {one: bound(one, limit, low) for one in forkers(server)}
    check_throttled(server.get("/slow"))
    assert server.get("/warm").body == b"warm"
    server.log(r"^lampyr: error: /slow: no instance can be started: .*\nhint: raise the limit")
    for one, soft in before.items():
        bound(one, limit, soft)
    until(lambda: server.get("/slow").status == 200, "the function to be back")
    assert all(one.is_running() for one in before)
    no_traceback(server)


def test_a_base_that_cannot_fork(serve: Serve) -> None:
    server = serve(ROUTES, command="dev")
    assert server.get("/warm").body == b"warm"
    base = server.find("lampyr.runtime.snapshot")
    with only(base, 0):
        server.write("app/slow/route.py", SAVED)  # which is imported before somebody asks for it
        check_throttled(server.get("/slow"))
        assert server.get("/warm").body == b"warm"
    server.log(r"^lampyr: error: /slow: it cannot be imported: .*the server cannot make its process: .*\nhint: raise")
    until(lambda: server.get("/slow").status == 200, "the function to be back")
    assert server.find("lampyr.runtime.snapshot").pid == base.pid
    no_traceback(server)


def test_as_many_files_as_may_be_had_are_opened(serve: Serve) -> None:
    server = serve(ROUTES, command="start", through=["prlimit", "--nofile=200:3000"])
    gateway = server.find("lampyr.gateway")
    assert resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE) == (3000, 3000)
    assert subprocess.run(["true"]).returncode == 0
