"""Everything that may die is killed under load, again and again, and the ledger is checked.

`./do soak` does it 1,000 times, an ordinary run of the tests a few times; LAMPYR_KILLS says how often.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from serving import Server, until, write

from lampyr.core.budgets import window
from lampyr.ledger import store, usage
from lampyr.ledger.counters import Counters

pytestmark = pytest.mark.alone

KILLS = int(os.environ.get("LAMPYR_KILLS", "16"))
CLIENTS = 6
# So many answers come between a kill and the next, and so many kills between one of the whole server and the next.
ANSWERS = 60
WHOLE = 25
BUDGET = 1_000_000

PROJECT = {
    "app/quick/route.py": f"""
        rate_limit = "none"
        budget = "{BUDGET} invocations/month"

        async def POST(req):
            return await req.text()
    """,
    "app/stream/route.py": """
        import asyncio
        runtime = "edge"
        rate_limit = "none"

        async def POST(req):
            for number in range(3):
                await asyncio.sleep(0.005)
                yield f"{number}\\n"
    """,
    "app/spent/route.py": """
        rate_limit = "none"
        budget = "40 invocations/month"

        def POST():
            return "one of forty"
    """,
}
# So that there is a broker to kill.
PROJECT |= {
    "lampyr.toml": '[providers.other]\nbase_url = "http://127.0.0.1:9/v1"\nsecret = "OTHER_KEY"\n',
    ".env.local": "OTHER_KEY=a-key-of-the-tests\n",
}
PATHS = ("/quick", "/quick", "/stream", "/spent")


class Load:
    """Clients that ask without a pause. `acknowledged` are the ids of whole answers, by path."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.acknowledged: dict[str, list[str]] = {path: [] for path in PATHS}
        self._stopped = False
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def stop(self) -> None:
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection, chance = None, random.Random(number)
        while not self._stopped:
            path = chance.choice(PATHS)
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("POST", path, b"body")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.acknowledged[path].append(answer.headers["x-lampyr-id"])
            except (OSError, http.client.HTTPException):
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.02)  # nobody listens yet
        if connection is not None:
            connection.close()


def victims(server: Server) -> dict[str, list[psutil.Process]]:
    """What may be killed, by what it was started for: our processes, snapshots and instances."""
    found: dict[str, list[psutil.Process]] = {}
    for one in server.processes():
        try:
            words = one.cmdline()
        except psutil.Error:
            continue
        kind = next((word for word in words if word.startswith("lampyr.")), "other")
        found.setdefault(kind, []).append(one)
    return found


def rows(root: Path) -> dict[str, tuple[str, str]]:
    """Function and outcome of every row by id; none is there twice."""
    with closing(sqlite3.connect(f"file:{root}/.lampyr/ledger/ledger.db?mode=ro", uri=True)) as db:
        found = db.execute("SELECT id, function, outcome FROM invocations").fetchall()
    assert len({id for id, _, _ in found}) == len(found)
    return {id: (function, outcome) for id, function, outcome in found}


def used(root: Path, route: str) -> float:
    begin_s, _ = window("month", time.time())
    counters = Counters(root / ".lampyr/ledger/budgets", print)
    return counters.counter(route, "invocations", "month").used(begin_s)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "project", PROJECT)
    return tmp_path / "project"


def test_whatever_is_killed_no_acknowledged_row_is_lost_or_doubled(root: Path) -> None:
    chance, killed, whole = random.Random(KILLS), Counter[str](), 0
    server = Server(root, "start")
    load = Load(server)
    try:
        for kill in range(KILLS):
            seen = load.count()
            until(lambda seen=seen: load.count() > seen + ANSWERS, f"answers after {killed}", 60, server.lines[-20:])
            if kill % WHOLE == WHOLE // 2:
                processes = server.processes()
                server.process.send_signal(signal.SIGKILL)
                psutil.wait_procs(processes, 20)
                server.stop()
                server, whole = Server(root, "start"), whole + 1
                load.port = server.port
                killed["the server"] += 1
                continue
            kinds = victims(server)
            kind = chance.choice(sorted(kinds))
            killed[kind] += 1
            try:
                chance.choice(kinds[kind]).kill()
            except psutil.NoSuchProcess:
                pass
        seen = load.count()
        until(lambda: load.count() > seen + ANSWERS, "answers at the end", 60, server.lines[-20:])
    finally:
        load.stop()
        server.process.send_signal(signal.SIGKILL)
        server.stop()
    _check(root, load)
    print(f"{load.count()} acknowledged, killed: {dict(killed)}")


def _check(root: Path, load: Load) -> None:
    again = Server(root, "start")  # what was under way is closed by the next start
    try:
        last = again.request("POST", "/quick", "last").headers["x-lampyr-id"]
        until(lambda: rows(root).get(last, ("", "running"))[1] == "ok", "the last row", 120, again.lines[-20:])
    finally:
        again.stop()
    found = rows(root)
    outcomes = Counter(outcome for _, outcome in found.values())
    assert not outcomes["running"]
    for path, ids in load.acknowledged.items():
        assert len(set(ids)) == len(ids)
        assert {id for id in ids if found.get(id) != (path, "ok")} == set()
    # One for each client and death of the gateway at most.
    assert outcomes["interrupted"] <= (KILLS + 2) * CLIENTS
    total = usage.report(store.totals(root / ".lampyr/ledger", "outcome").groups, "outcome")["total"]
    assert total["invocations"] + total["refused"] == len(found)
    # What budgets count is what was let in: exactly, but for what died between being counted and being opened.
    for route, most in (("/quick", BUDGET), ("/spent", 40)):
        let_in = sum(function == route and outcome != "over_budget" for function, outcome in found.values())
        assert let_in <= used(root, route) <= min(let_in + (KILLS + 2) * CLIENTS, most)
    assert len(load.acknowledged["/spent"]) <= 40 == used(root, "/spent")
