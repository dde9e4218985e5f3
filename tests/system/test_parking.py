"""The process that is forked ahead: it serves the next start, runs none of the user's code before, and goes again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from serving import WHO, Answer, Serve, Server, ended, running, until, who_of

PLAIN = f"""
    import os, random, uuid
    idle_timeout = 0.05
    rate_limit = "none"
    draw = random.Random()

    async def GET():
        return {{"who": {WHO}, "drawn": [random.random(), draw.random(), str(uuid.uuid1()), str(uuid.uuid4())]}}
"""
HOOKED = f"""
    import os
    from lampyr import after_restore
    idle_timeout = 0.05
    rate_limit = "none"
    restored = []

    @after_restore
    def restore():
        restored.append(os.getpid())
        print("restored", flush=True)

    async def GET():
        return {{"who": {WHO}, "restored": restored == [os.getpid()]}}
"""
APP = f"""
    import json, os
    idle_timeout = 0.05
    rate_limit = "none"
    started = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            started.append(os.getpid())
            print("restored", flush=True)
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
            await send({{"type": "lifespan.shutdown.complete"}})
            return
        body = json.dumps({{"who": {WHO}, "restored": started == [os.getpid()]}}).encode()
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": body}})
"""
STUCK = """
    max_duration = 1
    max_instances = 1
    idle_timeout = 0.05
    rate_limit = "none"

    def GET():
        while True:
            pass
"""
HEAVY_PAGES = 1000
HEAVY = f"""
    idle_timeout = 0.5
    rate_limit = "none"
    memory_of_the_import = bytearray(b"x" * ({HEAVY_PAGES} * 4096))

    def GET():
        for at in range(0, len(memory_of_the_import), 4096):
            memory_of_the_import[at] = 0
        return "written"
"""


def edge(source: str) -> str:
    return f'\n    runtime = "edge"{source}'


PROJECT = {
    "app/plain/route.py": PLAIN,
    "app/edge/route.py": edge(PLAIN),
    "app/hooked/route.py": HOOKED,
    "app/hooked-edge/route.py": edge(HOOKED),
    "app/app/route.py": APP,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("parking"), PROJECT) as started:
        yield started


LOOPS = """
    import asyncio
    from lampyr import after_restore
    idle_timeout = 0.05
    rate_limit = "none"
    made = asyncio.get_event_loop()
    same = []

    @after_restore
    def restore():
        same.append(asyncio.get_event_loop() is made and not made.is_closed())

    async def GET():
        return {"same": same, "running": asyncio.get_event_loop() is asyncio.get_running_loop()}
"""


def row(server: Server, route: str) -> dict[str, Any]:
    rows = server.rows()
    return next(one for one in rows if one["function"] == route)


def cold(server: Server, route: str) -> Answer:
    """A call that nobody is there for."""
    until(lambda: not row(server, route)["instances"], "no instance")
    answer = server.get(route)
    assert answer.status == 200, (answer.body, server.lines[-10:])
    assert "desc=cold" in answer.headers["server-timing"]
    return answer


def park(server: Server, route: str) -> psutil.Process:
    """Start `route` until it has a process parked; which one that is."""
    for _ in range(3):
        cold(server, route)
        time.sleep(0.35)  # what starts at once counts as one start
    until(lambda: row(server, route)["parked"], "a parked process")
    return psutil.Process(row(server, route)["parked"])


@pytest.mark.parametrize("route", ["/plain", "/edge", "/hooked", "/hooked-edge", "/app"])
def test_the_parked_process_is_the_next_instance(server: Server, route: str) -> None:
    parked = park(server, route)
    who = who_of(parked)
    assert cold(server, route).json()["who"] == who
    assert not row(server, route)["parked"]


@pytest.mark.parametrize("route", ["/hooked", "/hooked-edge", "/app"])
def test_nothing_of_the_users_runs_in_it_before(server: Server, route: str) -> None:
    park(server, route)
    before = sum("restored" in line for line in server.lines)
    time.sleep(0.2)
    assert sum("restored" in line for line in server.lines) == before
    assert cold(server, route).json()["restored"] is True
    until(lambda: sum("restored" in line for line in server.lines) > before, "what it printed", context=server.lines)


@pytest.mark.parametrize("route", ["/plain", "/edge"])
def test_each_draws_numbers_of_its_own(server: Server, route: str) -> None:
    drawn: list[Any] = []
    for _ in range(4):
        park(server, route)
        drawn += cold(server, route).json()["drawn"]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read which pages a function's process has")
def test_it_has_the_pages_that_those_before_have_written_to(serve: Serve) -> None:
    server = serve({"app/heavy/route.py": HEAVY})
    parked = park(server, "/heavy")
    cold(server, "/heavy")
    until(lambda: ended(parked), "no process")
    parked = park(server, "/heavy")
    before = faults(parked)
    cold(server, "/heavy")
    assert faults(parked) - before < HEAVY_PAGES // 2


def faults(process: psutil.Process) -> int:
    """How many pages it has been given so far (proc_pid_stat(5), minflt)."""
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.parametrize("route", ["/plain", "/edge", "/hooked"])
def test_where_it_is_killed_the_next_call_starts_another(server: Server, route: str) -> None:
    parked = park(server, route)
    parked.kill()
    until(lambda: not row(server, route)["parked"], "to be missed")
    assert cold(server, route).status == 200
    assert not any("ended" in line and route in line for line in server.lines)


def test_where_instances_have_to_be_ended_nothing_is_parked(serve: Serve) -> None:
    server = serve({"app/stuck/route.py": STUCK})
    resting = {one.pid for one in server.processes()}
    for _ in range(4):
        assert server.get("/stuck").status == 504
        time.sleep(0.6)
    assert not row(server, "/stuck")["parked"]
    assert {one.pid for one in server.processes()} <= resting


def test_where_nobody_comes_it_goes(server: Server) -> None:
    parked = park(server, "/plain")
    until(lambda: ended(parked), "no process", 30)
    assert not row(server, "/plain")["parked"]


@pytest.mark.parametrize("route", ["/plain", "/edge", "/hooked"])
def test_where_it_was_stopped_it_goes_on_when_it_is_wanted(server: Server, route: str) -> None:
    """By another instance of its function; nobody else can. Its own calls would wait for it until it is given up."""
    parked = park(server, route)
    who = who_of(parked)
    parked.send_signal(signal.SIGSTOP)
    assert cold(server, route).json()["who"] == who


def test_with_its_deployment_it_goes(serve: Serve) -> None:
    server = serve({"app/plain/route.py": PLAIN}, command="dev")
    parked = park(server, "/plain")
    server.write("app/plain/route.py", PLAIN.replace("0.05", "0.06"))
    until(lambda: ended(parked), "no process")
    assert cold(server, "/plain").status == 200


@pytest.mark.parametrize("module", ["lampyr.gateway", "lampyr.runtime.snapshot"])
def test_with_those_it_depends_on_it_goes(serve: Serve, module: str) -> None:
    server = serve({"app/plain/route.py": PLAIN})
    parked = park(server, "/plain")
    os.kill(server.find(module).pid, signal.SIGKILL)
    until(lambda: ended(parked), "no process")
    until(lambda: server.get("/plain").status == 200, "an answer")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio makes no loop of itself any more")
def test_the_loop_that_an_import_has_made_is_still_there(serve: Serve) -> None:
    server = serve({"app/loops/route.py": LOOPS})
    assert cold(server, "/loops").json() == {"same": [True], "running": True}
    park(server, "/loops")
    assert cold(server, "/loops").json() == {"same": [True], "running": True}


def test_with_a_snapshot_that_has_to_make_room_it_goes_without_a_word(serve: Serve) -> None:
    others = {f"app/other{number}/route.py": PLAIN for number in range(8)}
    settings = {"lampyr.toml": "[server]\nsnapshot_memory = 16\n"}
    server = serve({"app/plain/route.py": PLAIN, **others, **settings}, command="dev")
    parked = park(server, "/plain")
    time.sleep(0.2)  # it is moved to a control group of its own meanwhile
    for number in range(8):
        assert server.get(f"/other{number}").status == 200
    until(lambda: ended(parked), "no process")
    assert row(server, "/plain")["snapshot"] == "absent"
    assert not [line for line in server.lines if "warning" in line], server.lines
