"""The ledger of a real server: what its rows say, and that no kill takes an acknowledged one away or doubles it."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from serving import Serve, Server, until

PROJECT = {
    "app/work/route.py": """
        import asyncio, os, time
        from lampyr import BadRequest
        rate_limit = "none"
        max_duration = 1

        async def POST(req):
            what = await req.text()
            if what == "wait":
                await asyncio.sleep(30)
            elif what == "burn":
                start = time.process_time()
                while time.process_time() - start < 0.1:
                    pass
            elif what == "fail":
                raise ValueError("as asked")
            elif what == "deny":
                raise BadRequest("as asked")
            elif what == "die":
                os._exit(3)
            return "did " + what
    """,
    "app/burn/route.py": """
        import time
        from lampyr import after
        rate_limit = "none"

        def burn(seconds):
            start = time.thread_time()
            while time.thread_time() - start < seconds:
                pass

        def GET(req):
            burn(0.1)
            if req.query.get("after"):
                after(burn, 0.2)
            return "burnt"
    """,
    "app/edge/route.py": """
        import asyncio
        runtime = "edge"
        rate_limit = "none"
        memory = 1024

        async def GET(req):
            await asyncio.sleep(0.4)
            yield "first"
            yield "last"
    """,
    "app/hold/route.py": """
        import asyncio
        max_duration = 120
        async def POST(req):
            await asyncio.sleep(100)
    """,
    "app/few/route.py": """
        rate_limit = "1/hour"

        def GET():
            return "once"
    """,
}


def row(server: Server, id: str) -> dict[str, Any]:
    """The row of an invocation, once the database has it and it is closed."""

    def find() -> dict[str, Any] | None:
        found = rows(server.root).get(id)
        return found if found and found["outcome"] != "running" else None

    return until(find, f"the row of {id}", context=server.lines[-20:])


def rows(root: Path) -> dict[str, dict[str, Any]]:
    try:
        with closing(sqlite3.connect(f"file:{root}/.lampyr/ledger/ledger.db?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            found = [dict(one) for one in db.execute("SELECT * FROM invocations")]
    except sqlite3.OperationalError:
        return {}  # it is being made
    assert len({one["id"] for one in found}) == len(found)
    return {one["id"]: one for one in found}


def usage(root: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "lampyr", "usage", str(root), "--json", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("what", "status", "outcome"),
    [
        ("rest", 200, "ok"),
        ("deny", 400, "ok"),
        ("fail", 500, "error"),
        ("die", 502, "crashed"),
        ("wait", 504, "timeout"),
    ],
)
def test_a_row_says_how_it_ended(serve: Serve, what: str, status: int, outcome: str) -> None:
    server = serve(PROJECT)
    first, second = (server.request("POST", "/work", what) for _ in range(2))
    for answer in (first, second):
        found = row(server, answer.headers["x-lampyr-id"])
        assert (answer.status, found["status"], found["outcome"]) == (status, status, outcome)
        assert (found["function"], found["bytes_in"], found["bytes_out"]) == ("/work", len(what), len(answer.body))
        assert found["billed_ms"] == found["duration_ms"] and found["queue_ms"] >= 0
        assert abs(found["gb_s"] - found["duration_ms"] / 1000 * 0.5) < 1e-6
        if what == "rest":
            exec_ms = float(answer.headers["server-timing"].rpartition("exec;dur=")[2])
            assert abs(found["duration_ms"] - exec_ms) < 0.006  # one moment, rounded
            assert 5 < found["memory_mb"] < 512
        if what == "wait":
            assert 990 < found["queue_ms"] + found["init_ms"] + found["duration_ms"] < 15_000
    assert row(server, first.headers["x-lampyr-id"])["cold"] == 1


def test_who_leaves_and_who_is_refused_have_rows_too(serve: Serve) -> None:
    server = serve(PROJECT)
    ids = [server.get("/few").headers["x-lampyr-id"] for _ in range(2)]
    assert [row(server, id)["outcome"] for id in ids] == ["ok", "rate_limited"]
    with server.connect() as sock:
        sock.sendall(b"POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        until(lambda: any(one["outcome"] == "running" for one in rows(server.root).values()), "an open row")
    until(lambda: any(one["outcome"] == "client_closed" for one in rows(server.root).values()), "a closed row")
    total = usage(server.root)["total"]
    assert (total["invocations"], total["refused"], total["errors"]) == (2, 1, 0)


@pytest.mark.parametrize(
    "code",
    [
        "import none_such\ndef GET(): ...",
        "memory = 'much'\ndef GET(): ...",
        '# /// script\n# requires-python = "<3"\n# ///\ndef GET(): ...',
    ],
    ids=["import", "setting", "packages"],
)
def test_a_call_of_a_function_that_cannot_run_has_a_row(serve: Serve, code: str) -> None:
    """Whatever the reason: it cannot be imported, its file is wrong, or its packages cannot be had."""
    server = serve({"app/x/route.py": code}, command="dev")
    answer = server.get("/x")
    found = row(server, answer.headers["x-lampyr-id"])
    assert (answer.status, found["status"], found["outcome"]) == (500, 500, "error")
    assert (found["function"], found["bytes_out"], found["duration_ms"]) == ("/x", len(answer.body), 0)
    server.log(r"^GET /x 500 error ")
    total = usage(server.root)["total"]
    assert (total["invocations"], total["errors"]) == (1, 1)


@pytest.mark.parametrize("path", ["/reads", "/deaf"])
def test_a_body_that_grows_too_large_is_its_clients_fault(serve: Serve, path: str) -> None:
    reads = """
        max_body = 1000
        idle_timeout = 600

        async def POST(req):
            return await req.text()
    """
    deaf = """
        import asyncio
        max_body = 1000
        idle_timeout = 600

        async def POST(req):
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
    """
    server = serve({"app/reads/route.py": reads, "app/deaf/route.py": deaf})
    with server.connect() as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        until(lambda: any(one["outcome"] == "running" for one in rows(server.root).values()), "an open row")
        for _ in range(3):
            sock.sendall(b"190\r\n" + b"x" * 400 + b"\r\n")
        answer = sock.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413 ") and "FUNCTION_PAYLOAD_TOO_LARGE" in answer
    id = re.search("x-lampyr-id: (.*)\r", answer)
    assert id is not None
    found = row(server, id[1])
    assert (found["status"], found["outcome"], found["bytes_in"]) == (413, "client_closed", 1200)
    total = usage(server.root)["total"]
    assert (total["invocations"], total["errors"]) == (1, 0)
    if path == "/deaf":  # it does not hear that its client has gone, and is not left running
        server.log(r"POST /deaf 413 client_closed [1-9]\d{3,}\.\d ms")


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="the clocks of other processes are Linux's")
def test_cpu_time_is_exact_where_one_request_has_the_process(serve: Serve) -> None:
    server = serve(PROJECT)
    slept, burnt, later, last = (
        row(server, server.request(method, path, body).headers["x-lampyr-id"])
        for method, path, body in (
            ("POST", "/work", "rest"),
            ("GET", "/burn", None),
            ("GET", "/burn?after=1", None),
            ("GET", "/burn", None),
        )
    )
    assert slept["cpu_ms"] < 80
    assert 100 <= burnt["cpu_ms"] < 180
    until(lambda: 300 <= rows(server.root)[later["id"]]["cpu_ms"] < 380, "what after() used", context=later)
    assert 100 <= last["cpu_ms"] < 180
    assert usage(server.root)["groups"][0]["cpu_ms"] >= 500


@pytest.mark.alone
def test_requests_that_share_an_instance_share_its_memory_and_time(serve: Serve) -> None:
    """Four streams of 0.4 s at the same time, in one instance of 1 GiB, are 0.4 GiB-seconds and not 1.6.

    On a busy machine they take longer, and do not end at the same time.
    """
    server = serve(PROJECT)
    server.get("/edge")
    before = usage(server.root)["total"]
    threads = [threading.Thread(target=server.get, args=("/edge",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = usage(server.root)["total"]
    assert total["invocations"] == 5
    billed_s = (total["billed_ms"] - before["billed_ms"]) / 1000
    assert billed_s > 1.55
    assert 0.39 < total["gb_s"] - before["gb_s"] < 0.75 * billed_s


def test_the_usage_command(serve: Serve) -> None:
    server = serve(PROJECT)
    assert usage(server.root)["groups"] == []
    for path in ("/few", "/few", "/burn"):
        server.get(path)
    for state in ("running", "stopped"):
        if state == "stopped":
            server.stop()
        found = usage(server.root)
        assert [group["function"] for group in found["groups"]] == ["/burn", "/few"]
        sums = ("invocations", "errors", "billed_ms", "cpu_ms", "gb_s", "bytes_in", "bytes_out", "tokens_in")
        assert {*sums, "tokens_out", "cost_usd", "cold_starts"} <= found["total"].keys()
        assert (found["total"]["invocations"], found["total"]["tokens_in"]) == (2, 0)
    for by in ("day", "hour", "provider", "model", "outcome"):
        found = usage(server.root, "--by", by)
        assert found["groups"][0].keys() == {by, *found["total"]}
    assert [(one["outcome"], one["invocations"], one["refused"]) for one in found["groups"]] == [
        ("ok", 2, 0),
        ("rate_limited", 0, 1),
    ]


def shown(root: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "lampyr", "usage", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_usage_for_people_and_spreadsheets(serve: Serve) -> None:
    server = serve({**PROJECT, "lampyr.toml": "[prices]\nmachine_per_hour = 0.05\n"})
    for path in ("/few", "/few", "/burn"):
        server.get(path)
    lines = shown(server.root).splitlines()
    assert lines[0].split()[:4] == ["FUNCTION", "INVOCATIONS", "ERRORS", "REFUSED"]
    assert lines[1].split()[:4] == ["/burn", "1", "0", "0"] and lines[3].split()[:4] == ["total", "2", "0", "1"]
    assert re.fullmatch(r"since \d{4}-\d\d-\d\dT\d\d:00Z .*, busy .* of it \(.*%\), CPU time .*", lines[5])
    assert lines[5].endswith("CPU time " + re.findall(r"[\d.]+ m?s", lines[3])[1])
    assert re.fullmatch(r"a server all day +\S+, at \$0\.0500 an hour", lines[6])
    rows = list(csv.DictReader(io.StringIO(shown(server.root, "--csv", "--by", "outcome"))))
    assert [(row["outcome"], row["invocations"], row["refused"]) for row in rows] == [
        ("ok", "2", "0"),
        ("rate_limited", "0", "1"),
    ]
    assert rows[0].keys() == {"outcome", *usage(server.root)["total"]}
    found = usage(server.root, "--since", "24h")
    assert found["total"]["invocations"] == 2 and 24 <= found["always_on"]["hours"] < 25
    assert abs(found["always_on"]["usd"] - found["always_on"]["hours"] * 0.05) < 1e-5
    assert usage(server.root, "--since", "2999-01-01")["groups"] == []
    for wrong in ("yesterday", "", "24H", "-1h", "2026-13-45", "9999-12-31T23:59-12:00"):
        assert "--since" in shown(server.root, f"--since={wrong}", code=2)
    assert usage(server.root, "--since", "10m")["total"]["invocations"] == 2
    assert "one of them" in shown(server.root, "--json", "--csv", code=2)
