"""`lampyr ps` and the door it asks at: what runs, as it is at that moment, and nothing for those without the key."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import WHO, Serve, Server, running, until, write

from lampyr.control import door
from lampyr.errors import LampyrError, StateError

GATE = """
    import asyncio, os, pathlib
    from lampyr import after
    APP = pathlib.Path(__file__).parents[1]
    SETTINGS

    async def GET(req):
        print("in the handler", flush=True)
        while not (APP / "go").exists():
            await asyncio.sleep(0.01)
        return WHO
""".replace("WHO", WHO)
PROJECT = {
    "app/one/route.py": GATE.replace("SETTINGS", ""),
    "app/many/route.py": GATE.replace("SETTINGS", 'runtime = "edge"\n    concurrency = 3'),
    "app/quick/[id]/route.py": "rate_limit = 'none'\ndef GET(): return 'quick'\nasync def POST(): return 'quick'\n",
    "app/narrow/route.py": GATE.replace("SETTINGS", "max_instances = 1"),
    "app/broken/route.py": "import no_such_module\ndef GET(): ...\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("ps"), PROJECT, "dev") as server:
        yield server


def ps(server: Server) -> dict[str, Any]:
    """The functions by route, as `--json` has them."""
    listed = server.rows()
    return {one["function"]: one for one in listed}


def names(server: Server) -> dict[int, str]:
    """What the kernel calls each process."""
    return {one.pid: Path(f"/proc/{one.pid}/comm").read_text().rstrip("\n") for one in server.processes()}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_processes_are_named_after_their_function(server: Server) -> None:
    assert server.get("/quick/7").status == 200
    found = names(server)
    assert "lampyr:base" in found.values()
    instance = ps(server)["/quick/[id]"]["instances"][0]["pid"]
    assert found[instance] == "lampyr:ick/[id]"
    assert [*found.values()].count("lampyr:ick/[id]") > 1, "its snapshot has none"


def busy(server: Server, route: str) -> list[dict[str, Any]]:
    """Those of a function's instances that are at something: a spare one may stand by."""
    return [one for one in ps(server)[route]["instances"] if one["in_flight"]]


def in_flight(server: Server, route: str) -> int:
    return sum(one["in_flight"] for one in busy(server, route))


def idle(server: Server, route: str) -> bool:
    """Whether all its instances are: the client has the last byte a moment before the gateway has the instance back."""
    return {one["state"] for one in ps(server)[route]["instances"]} == {"idle"}


def command(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, "-m", "lampyr", "ps", *map(str, arguments)]
    return subprocess.run(done, capture_output=True, text=True, timeout=60, env={**os.environ, **env})


class Held:
    """Requests that wait in their handlers until the block ends."""

    def __init__(self, server: Server, *paths: str) -> None:
        self.go = server.root / "app/go"
        self.bodies: list[str] = []
        self.threads = [threading.Thread(target=self._ask, args=(server, path)) for path in paths]

    def _ask(self, server: Server, path: str) -> None:
        self.bodies.append(server.get(path).body.decode())

    def __enter__(self) -> Held:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.touch()
        for thread in self.threads:
            thread.join(30)
        self.go.unlink()


def test_the_shape_is_that_of_the_contract(server: Server) -> None:
    server.get("/quick/1")
    until(lambda: idle(server, "/quick/[id]"), "it to be idle")
    done = command(server.root, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    functions = json.loads(done.stdout)["functions"]
    keys = {"function", "runtime", "deployment", "snapshot", "instances"}
    assert {one["function"] for one in functions} == {"/one", "/many", "/quick/[id]", "/narrow", "/broken"}
    assert all(keys <= set(one) and one["snapshot"] in ("ready", "absent") for one in functions)
    assert len({one["deployment"] for one in functions}) == 1
    quick = next(one for one in functions if one["function"] == "/quick/[id]")
    assert (quick["runtime"], quick["snapshot"]) == ("standard", "ready")
    instance = quick["instances"][0]  # where the machine was slow there is a spare one
    assert set(instance) == {"id", "pid", "state", "in_flight", "memory_mb"}
    assert (instance["state"], instance["in_flight"]) == ("idle", 0)
    assert isinstance(instance["id"], str) and 1 < instance["memory_mb"] < 200


def test_an_instance_is_shown_with_what_it_is_at(server: Server) -> None:
    with Held(server, "/one", "/many", "/many") as held:
        until(lambda: in_flight(server, "/many") == 2, "both at /many")
        until(lambda: in_flight(server, "/one") == 1, "the one at /one")
        many, one = busy(server, "/many"), busy(server, "/one")
        assert [(it["state"], it["in_flight"]) for it in many] == [("busy", 2)]
        assert [(it["state"], it["in_flight"]) for it in one] == [("busy", 1)]
        pids = [it["pid"] for it in (*many, *one)]
        processes = {process.pid for process in server.processes()}
        assert set(pids) <= processes
    assert {process.pid for who in held.bodies if (process := server.who_is(who))} == set(pids)
    until(lambda: idle(server, "/many"), "it to be shown as idle")


def test_who_waits_for_an_instance_is_not_in_flight(server: Server) -> None:
    def shown() -> tuple[int, list[int]]:
        narrow = ps(server)["/narrow"]
        return narrow["waiting"], [one["in_flight"] for one in narrow["instances"]]

    with Held(server, "/narrow", "/narrow", "/narrow"):
        # Both at once: two wait for the instance to start, too, when the third has not come yet.
        until(lambda: shown() == (2, [1]), "two to wait, and one to be in flight")
        assert shown() == (2, [1])  # and so it stays, as long as that one does


def test_in_flight_never_exceeds_concurrency_where_requests_wait_in_sockets(server: Server) -> None:
    over = threading.Event()

    def flood() -> None:
        with server.connect() as sock:
            while not over.is_set():
                sock.sendall(b"POST /quick/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")

    seen: list[int] = []
    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(flood) for _ in range(8)]
        for _ in range(100):
            seen += [one["in_flight"] for one in ps(server)["/quick/[id]"]["instances"]]
        over.set()
        for one in clients:
            one.result(30)
    assert set(seen) <= {0, 1} and 1 in seen


def test_a_function_that_cannot_be_imported_has_no_snapshot(server: Server) -> None:
    assert server.get("/broken").status == 500
    assert (ps(server)["/broken"]["snapshot"], ps(server)["/broken"]["instances"]) == ("absent", [])


def test_what_an_earlier_deployment_has_to_finish_is_shown_as_its(serve: Serve) -> None:
    server = serve({"app/one/route.py": GATE.replace("SETTINGS", "")}, command="dev")
    with Held(server, "/one"):
        until(lambda: in_flight(server, "/one") == 1, "the handler to begin")
        old = ps(server)["/one"]["deployment"]
        server.write("app/one/route.py", "def GET(): return 'new'\n")
        assert server.get("/one").body == b"new"
        rows = server.rows()
        states = {row["deployment"]: [one["state"] for one in row["instances"] if one["in_flight"]] for row in rows}
        assert len(states) == 2 and states[old] == ["retiring"]
    until(lambda: len(server.rows()) == 1, "the old deployment to be gone")


def test_people_get_a_table(server: Server) -> None:
    server.get("/quick/1")
    until(lambda: idle(server, "/quick/[id]"), "it to be idle")
    done = command(server.root)
    assert done.returncode == 0
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head[:4] == ["FUNCTION", "RUNTIME", "DEPLOYMENT", "SNAPSHOT"]
    row = next(row for row in rows if row[0] == "/quick/[id]")
    assert row[1] == "standard" and row[3] == "ready" and row[6] == "idle"
    assert "\x1b" not in done.stdout


def test_no_server_no_answer(tmp_path: Path) -> None:
    write(tmp_path / "project", {"app/x/route.py": "def GET(): return 1\n"})
    done = command(tmp_path / "project", "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 1 and error["code"] == "STATE" and "no server runs on" in error["message"]
    assert error["hint"] and f"lampyr: error: {error['message']}" in done.stderr


def test_a_server_that_was_killed_answers_no_more_and_the_next_one_does(serve: Serve, tmp_path: Path) -> None:
    state = tmp_path / "somewhere" / ("a very long name " * 8) / "state"  # longer than an address of a socket
    server = serve({"app/x/route.py": "def GET(): return 1\n"}, "--state-dir", str(state))
    assert door.ask(state, "ps")["functions"][0]["function"] == "/x"
    server.process.kill()
    server.process.wait(10)
    until(lambda: not _answers(state), "the door to be shut")
    again = Server(server.root, "start", "--state-dir", str(state))
    try:
        assert command("--state-dir", state, server.root).returncode == 0
    finally:
        again.stop()
    assert not (state / "door").exists() and not (state / "door.key").exists()


@pytest.mark.parametrize("module", ["lampyr.control", "lampyr.gateway"])
def test_the_door_outlives_what_is_behind_it(serve: Serve, module: str) -> None:
    server = serve({"app/x/route.py": "def GET(): return 1\n"})
    victim = server.find(module)
    victim.kill()
    until(lambda: server.find(module).pid != victim.pid, "the replacement")
    assert until(lambda: _answers(server.root / ".lampyr"), "an answer")


def test_the_door_is_its_owners(server: Server) -> None:
    for name in ("door", "door.key"):
        assert (server.root / ".lampyr" / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nonsense", "a request is one JSON object"),
        (b"[]", "a request is one JSON object"),
        (b'{"version": 2, "key": "KEY", "do": "ps"}', "another version"),
        (b'{"version": 1, "do": "ps"}', "the key is not that of this server"),
        (b'{"version": 1, "key": "kex", "do": "ps"}', "the key is not that of this server"),
        (b'{"version": 1, "key": "KEY", "do": "fly"}', "does not know how to 'fly'"),
    ],
)
def test_what_the_door_does_not_open_for(server: Server, line: bytes, says: str) -> None:
    state = server.root / ".lampyr"
    line = line.replace(b"KEY", (state / "door.key").read_bytes())
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        with door._address(state) as address:
            sock.connect(address)
        sock.sendall(line + b"\n")
        answer = json.loads(sock.makefile("rb").readline())
    assert set(answer) == {"version", "error"} and says in answer["error"]["message"]


def test_visitors_who_say_nothing_keep_nobody_out(server: Server) -> None:
    state = server.root / ".lampyr"
    idle = [socket.socket(socket.AF_UNIX) for _ in range(2 * door.MAX_VISITORS)]
    for sock in idle:
        with door._address(state) as address:
            sock.connect(address)
        sock.sendall(b"{")
    assert ps(server)
    for sock in idle:
        sock.close()


def test_who_finds_others_at_the_door_waits(server: Server) -> None:
    control = server.find("lampyr.control")
    control.suspend()
    try:
        crowd = crowded(server.root / ".lampyr")
        found: list[dict[str, Any]] = []
        asking = threading.Thread(target=lambda: found.append(ps(server)))
        asking.start()
        asking.join(0.5)
        assert asking.is_alive()
    finally:
        control.resume()
    asking.join(30)
    assert found
    for sock in crowd:
        sock.close()


def crowded(state: Path) -> list[socket.socket]:
    """As many as may wait at a door until somebody opens it."""
    crowd = []
    while True:
        crowd.append(socket.socket(socket.AF_UNIX))
        crowd[-1].setblocking(False)
        try:
            with door._address(state) as address:
                crowd[-1].connect(address)
        except BlockingIOError:
            return crowd


def _answers(state: Path) -> bool:
    try:
        return bool(door.ask(state, "ps")["functions"])
    except StateError:
        return False
    except LampyrError as error:
        raise AssertionError(error.message) from error
