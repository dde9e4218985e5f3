"""The server under fire: kill -9 at random, under load. Who fails was in flight on the victim; all else goes on.

LAMPYR_FIRE_S: for how long (6 seconds without it); LAMPYR_FIRE_SEED: the killer's choices.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from serving import Serve, Server, ended, started_for, until, write

from lampyr.runtime import sandbox

FIRE_S = float(os.environ.get("LAMPYR_FIRE_S", "6"))
SEED = int(os.environ.get("LAMPYR_FIRE_SEED", "20"))
# A kill and the failures it causes are seen on different clocks of one machine, by threads that wait for each other.
SLACK_S = 0.5

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not sandbox.find().room, reason="who is a snapshot is known by its room"),
]

PROJECT = {
    "app/quick/route.py": "rate_limit = 'none'\ndef GET(): return 'fine'\n",
    "app/wait/route.py": """
        import asyncio
        rate_limit = "none"
        async def GET():
            await asyncio.sleep(0.05)
            return "fine"
    """,
    "app/many/route.py": """
        import asyncio
        runtime = "edge"
        rate_limit = "none"
        async def GET():
            async def parts():
                for _ in range(4):
                    yield "fi"
                    await asyncio.sleep(0.02)
                    yield "ne"
            return parts()
    """,
    "app/kept/route.py": """
        min_instances = 1
        rate_limit = "none"
        async def POST(req):
            return "fine" if await req.text() == "x" * 20_000 else "not what was sent"
    """,
}
ASKS = {"/quick": ("GET", None), "/wait": ("GET", None), "/many": ("GET", None), "/kept": ("POST", b"x" * 20_000)}
WANTED = {"/quick": b"fine", "/wait": b"fine", "/many": b"fine" * 4, "/kept": b"fine"}

SHARING = """
    import heavy
    rate_limit = "none"
    def GET(): return heavy.WORD
"""
# Functions that need a shared snapshot, the broker, and neither.
LEANING = {
    "app/quick/route.py": PROJECT["app/quick/route.py"],
    "app/a/route.py": SHARING,
    "app/b/route.py": SHARING,
    "app/model/route.py": """
        import http.client, json, os
        from urllib.parse import urlsplit
        rate_limit = "none"
        BODY = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hello"}]})
        def GET():
            url = urlsplit(os.environ["OPENAI_BASE_URL"])
            connection = http.client.HTTPConnection(url.netloc, timeout=9)
            headers = {"authorization": "Bearer " + os.environ.get("OPENAI_API_KEY", "")}
            headers["content-type"] = "application/json"
            connection.request("POST", url.path + "/chat/completions", BODY, headers)
            answer = connection.getresponse()
            found = answer.read()
            return "fine" if answer.status == 200 and b"choices" in found else f"{answer.status} {found}"
    """,
    "lampyr.toml": "[providers.echo]\n",
}
BACK_S = 6.0  # it takes less than 2 on a machine at rest


@dataclass
class Result:
    """One request: when, and what came of it ("fine", a code of ours, or "cut" where the connection broke)."""

    path: str
    began_s: float
    ended_s: float
    what: str


@dataclass
class Kill:
    kind: str
    pid: int
    at_s: float


@dataclass
class Load:
    """Clients that ask as fast as they get answers, each request on a connection of its own."""

    server: Server
    clients_for_each: int = 2
    paths: tuple[str, ...] = tuple(ASKS)
    results: list[Result] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self.threads = [
            threading.Thread(target=self._ask_on, args=(path,))
            for path in self.paths
            for _ in range(self.clients_for_each)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def _ask_on(self, path: str) -> None:
        while not self.over.is_set():
            began_s = time.monotonic()
            what = self._ask(path)
            self.results.append(Result(path, began_s, time.monotonic(), what))

    def _ask(self, path: str) -> str:
        method, body = ASKS.get(path, ("GET", None))
        try:
            answer = self.server.request(method, path, body)
        except (OSError, http.client.HTTPException):
            return "cut"
        return "fine" if answer.body == WANTED.get(path, b"fine") else answer.error or f"nonsense: {answer.body!r}"


def kinds(server: Server) -> dict[str, list[psutil.Process]]:
    """Who can be a victim: our own processes by module, snapshots of functions, and instances."""
    modules = {"lampyr.gateway": "gateway", "lampyr.control": "control", "lampyr.runtime.snapshot": "base"}
    found: dict[str, list[psutil.Process]] = {kind: [] for kind in (*modules.values(), "snapshot", "instance")}
    ours = psutil.Process(server.process.pid)
    for one in server.processes():
        try:
            module = next((name for name in modules if name in one.cmdline()), None)
            if module is None or one.status() == psutil.STATUS_ZOMBIE:
                continue
            depth = len(_namespaces(one.pid)) - len(_namespaces(ours.pid))
            if module != "lampyr.runtime.snapshot" or (depth == 0 and one.ppid() == ours.pid and not _adopted(one)):
                found[modules[module]].append(one)
            else:
                found["snapshot" if _namespaces(one.pid)[-1] == 1 else "instance"].append(one)
        except (psutil.Error, OSError):
            continue
    return found


def _namespaces(pid: int) -> list[int]:
    """The numbers a process has, from the outermost namespace inwards (proc(5), NSpid)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return [int(one) for one in next(line for line in text.splitlines() if line.startswith("NSpid:")).split()[1:]]


def _adopted(process: psutil.Process) -> bool:
    """Whether a process that descends from a base has come to the supervisor because that base has died."""
    return os.getpgid(process.pid) != process.pid


class Killer:
    """Kills one process at a time, at random but the same for the same seed."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.kills: list[Kill] = []

    def strike(self) -> None:
        kind = self.random.choice(["instance", "instance", "snapshot", "snapshot", "gateway", "control", "base"])
        victims = kinds(self.server)[kind]
        if victims:
            victim = self.random.choice(victims)
            self.kills.append(Kill(kind, victim.pid, time.monotonic()))
            with suppress(psutil.NoSuchProcess):
                victim.kill()

    def go_on(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.strike()
            time.sleep(self.random.uniform(0.05, 0.6))


def excused(result: Result, kills: list[Kill]) -> bool:
    """Whether a kill during the request explains its failure."""
    during = {kill.kind for kill in kills if result.began_s - SLACK_S <= kill.at_s <= result.ended_s}
    if result.what == "cut":  # a response that had begun ends with its instance, any other with the gateway
        return bool(during & ({"gateway", "instance", "snapshot"} if result.path == "/many" else {"gateway"}))
    return result.what == "FUNCTION_CRASHED" and bool(during & {"instance", "snapshot"})


def test_only_requests_in_flight_on_a_victim_fail(serve: Serve) -> None:
    server = serve(PROJECT)
    for path in ASKS:
        until(lambda path=path: server.request(ASKS[path][0], path, ASKS[path][1]).status == 200, f"{path} to answer")
    killer = Killer(server, SEED)
    with Load(server) as load:
        killer.go_on(FIRE_S)
        for path in ASKS:  # everything is back: nothing is asked twice to be answered once
            since = time.monotonic()
            until(lambda path=path, since=since: _fine_since(load, path, since), f"{path} after the fire", 15)
    failed = [one for one in load.results if one.what != "fine"]
    unexcused = [one for one in failed if not excused(one, killer.kills)]
    print(f"{len(load.results)} requests, {len(failed)} failed, {Counter(one.kind for one in killer.kills)}")
    assert killer.kills and len(load.results) > len(failed)
    assert not unexcused, (unexcused, killer.kills, server.lines[-40:])
    assert server.process.poll() is None


def _fine_since(load: Load, path: str, since: float) -> bool:
    return any(one.path == path and one.began_s >= since and one.what == "fine" for one in list(load.results))


# What a kill may fail, by the path of the request that was in flight.
COSTS = {
    "shared": {("/a", "FUNCTION_CRASHED"), ("/b", "FUNCTION_CRASHED")},
    "lampyr.broker": {("/model", "FUNCTION_INVOCATION_FAILED")},
    "lampyr.vault": set(),
    "lampyr.console": set(),
}


def test_what_functions_lean_on_costs_only_what_was_in_flight_and_is_back(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path, {"site/heavy/__init__.py": "WORD = 'fine'\n", "site/heavy/weights.txt": "x" * 1_100_000})
    server = serve(LEANING, env={"PYTHONPATH": f"{tmp_path}/site{os.pathsep}{os.environ.get('PYTHONPATH', '')}"})
    paths = ("/quick", "/a", "/b", "/model")
    for path in paths:
        answer = server.get(path)
        assert answer.body == b"fine", (path, answer)
    until(lambda: _process(server, "shared"), "a shared snapshot")
    with Load(server, clients_for_each=1, paths=paths) as load:
        for kind in [*COSTS] * 2:
            _kill_and_await(server, load, kind)
    failed = [one for one in load.results if one.what != "fine"]
    print(f"{len(load.results)} requests, {len(failed)} failed: {Counter((one.path, one.what) for one in failed)}")


def _kill_and_await(server: Server, load: Load, kind: str) -> None:
    _look_at_the_console(server)  # it has no process before
    victim = until(lambda: _process(server, kind), kind)
    at_s = time.monotonic()
    victim.kill()

    def back() -> bool:
        if kind == "lampyr.console":
            _look_at_the_console(server)
        other = _process(server, kind)
        return other is not None and other.pid != victim.pid

    until(back, f"another {kind}", BACK_S)
    for path in load.paths:
        until(lambda path=path: _fine_since(load, path, at_s), f"{path} after {kind}", at_s + BACK_S - time.monotonic())
    time.sleep(SLACK_S)
    failed = [one for one in list(load.results) if one.what != "fine" and one.ended_s >= at_s]
    unexcused = [one for one in failed if (one.path, one.what) not in COSTS[kind] or one.began_s > at_s + SLACK_S]
    assert not unexcused, (kind, at_s, unexcused, server.lines[-40:])


def _process(server: Server, kind: str) -> psutil.Process | None:
    """The living process of `kind`: of one of our modules, or the shared snapshot, with two functions below it."""
    with suppress(psutil.Error):
        if kind != "shared":
            return next(started_for(kind, psutil.Process(server.process.pid).children()), None)
        below = [inner for child in server.find("lampyr.runtime.snapshot").children() for inner in child.children()]
        return next((one for one in below if len(one.children()) >= 2), None)
    return None


def _look_at_the_console(server: Server) -> None:
    address = urlsplit(_console_url(server))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    with suppress(OSError, http.client.HTTPException):  # what was in flight on it
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()


def _console_url(server: Server) -> str:
    """Where it is; `lampyr console` would add the token."""
    return until(
        lambda: next((found[0] for line in server.lines if (found := re.search(r"http://127\S+", line))), None),
        "the console's address", context=server.lines,
    )  # fmt: skip


def test_the_gateway_is_back_on_the_same_sockets(serve: Serve) -> None:
    server = serve(PROJECT)
    assert server.get("/quick").body == b"fine"
    old = server.processes()
    gateway = server.find("lampyr.gateway")
    others = {server.find(f"lampyr.{one}").pid for one in ("control", "vault")}
    gateway.kill()
    sock = server.connect()  # nobody is refused meanwhile
    sock.sendall(b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    data = b""
    while piece := sock.recv(4096):
        data += piece
    sock.close()
    assert data.startswith(b"HTTP/1.1 200") and data.endswith(b"fine")
    until(lambda: {one.pid for one in old if not ended(one)} == others, "the orphans to be gone")


@pytest.mark.parametrize("kind", ["instance", "snapshot"])
def test_what_is_kept_comes_back_by_itself(serve: Serve, kind: str) -> None:
    server = serve({"app/kept/route.py": "min_instances = 2\ndef GET(): return 'fine'\n"})
    until(lambda: len(kinds(server)["instance"]) == 2, "two instances")
    victim = kinds(server)[kind][0]
    victim.kill()
    until(lambda: ended(victim), "the victim to be gone")
    until(lambda: len(kinds(server)["instance"]) == 2, "two instances again, for which nobody has asked")
    assert "desc=warm" in server.get("/kept").headers["server-timing"]


def test_a_kill_while_a_function_is_imported_or_started_costs_no_request(serve: Serve) -> None:
    slow = """
        import pathlib, time
        from lampyr import after_restore
        APP = pathlib.Path(__file__).parents[1]
        print("importing", flush=True)
        while not (APP / "import").exists():
            time.sleep(0.01)

        @after_restore
        def wait():
            print("starting", flush=True)
            while not (APP / "start").exists():
                time.sleep(0.01)

        def GET(): return "fine"
    """
    server = serve({"app/slow/route.py": slow}, command="dev")
    bodies: list[bytes] = []
    client = threading.Thread(target=lambda: bodies.append(server.get("/slow").body))
    client.start()
    _kill_at(server, "snapshot", "importing")
    server.write("app/import", "")
    _kill_at(server, "instance", "starting")
    server.write("app/start", "")
    client.join(30)
    assert bodies == [b"fine"], server.lines


def _kill_at(server: Server, kind: str, word: str) -> None:
    """Kill the process that has said `word`, and wait until its successor has said it too."""
    server.log(rf"\| {word}$")
    until(lambda: kinds(server)[kind], f"the {kind}")[0].kill()
    until(lambda: sum(line.endswith(f"| {word}") for line in server.lines) == 2, f"a second {word}", 10, server.lines)


def test_many_kills_within_a_minute_do_not_stop_the_server(serve: Serve) -> None:
    server = serve(PROJECT)
    for _ in range(12):
        victim = server.find("lampyr.control")
        victim.kill()
        until(lambda victim=victim: server.find("lampyr.control").pid != victim.pid, "the next one")
    assert server.get("/quick").body == b"fine"
