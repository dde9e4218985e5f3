"""SPEC 2 in real processes: how many instances there are, how long they live, and what becomes of their work."""

from __future__ import annotations

import json
import re
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from typing import Any

import pytest
from serving import WHO, Answer, Serve, Server, ended, until, write

MARKS = """
    import asyncio
    import os
    import pathlib
    from lampyr import Request, after, after_restore, before_snapshot

    APP = pathlib.Path(__file__).parent

    def who():
        return WHO

    def mark(name):
        print(f"mark {name}.", flush=True)

    async def gate(name):
        while not (APP / name).exists():
            await asyncio.sleep(0.01)
""".replace("WHO", WHO)
ROUTES = {
    "shared": """
        runtime = "edge"
        concurrency = 2

        async def GET():
            mark("shared")
            await gate("shared-go")
            return who()
    """,
    "one": """
        max_instances = 1

        async def GET():
            mark("one")
            await gate("one-go")
            return who()
    """,
    "kept": """
        min_instances = 1
        max_instances = 1
        idle_timeout = 0
        after_restore(lambda: mark("kept"))

        def GET(): return who()
    """,
    "thread": """
        import threading
        def GET(): return {"main": threading.current_thread() is threading.main_thread()}
    """,
    "hooks": """
        concurrency = 1
        LOG = []
        before_snapshot(lambda: LOG.append(f"before in {os.getpid()}"))
        after_restore(lambda: LOG.append(f"after in {os.getpid()}"))

        async def GET(): return {"log": LOG, "pid": os.getpid()}
    """,
    "goes-on": """
        on_disconnect = "continue"

        async def GET():
            mark("goes-on-begun")
            await gate("goes-on-go")
            mark("goes-on-done")
            return "nobody reads this"
    """,
    "goes-on-streaming": """
        runtime = "edge"
        first_byte_timeout = 1
        on_disconnect = "continue"

        async def GET():
            mark("goes-on-streaming-begun")
            await gate("goes-on-streaming-go")
            return pieces()

        async def pieces():
            yield "it has begun in time"
            await asyncio.sleep(1.5)  # longer than it had for its first byte
            mark("goes-on-streaming-done")
    """,
    "longer": """
        from lampyr import Response
        runtime = "edge"

        async def GET():
            return Response(pieces(), headers={"content-length": "5"})

        async def pieces():
            try:
                while True:
                    yield b"x" * 60_000
            finally:
                mark("longer-ended")
    """,
    "shorter": """
        from lampyr import Response

        def GET():
            return Response(iter([b"five."]), headers={"content-length": "50"})
    """,
    "patient": """
        runtime = "edge"
        first_byte_timeout = 1

        async def GET(): await asyncio.sleep(60)
    """,
    "too-late": """
        max_duration = 1

        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                mark("too-late-ended")

        def GET():
            after(work)
            return "fine"
    """,
    "scaled-down": """
        idle_timeout = 0

        async def work():
            await gate("scaled-down-go")
            mark("scaled-down-done")

        def GET():
            after(work)
            return who()
    """,
    "flood": """
        runtime = "edge"

        async def GET():
            for number in range(2000):
                mark(f"flood-{number}")
                yield b"x" * 65536
    """,
}


def project() -> dict[str, str]:
    """A function for each of ROUTES."""
    routes = {f"app/{name}/route.py": textwrap.dedent(text) for name, text in ROUTES.items()}
    return {"app/marks.py": MARKS, **{name: f"from ..marks import *\n{text}" for name, text in routes.items()}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("life") / "project"
    write(root, project())
    server = Server(root, "start")
    yield server
    server.stop()


def marks(server: Server, name: str) -> list[str]:
    """What handlers marked under a name so far, the oldest first."""
    return [mark for line in list(server.lines) for mark in re.findall(rf"\| mark ({name}.*)\.", line)]


class Both:
    """The same request twice at once, each on a connection and a thread of its own."""

    def __init__(self, server: Server, path: str) -> None:
        self.answers: list[Answer] = []
        self.threads = [threading.Thread(target=self._ask, args=(server, path)) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def _ask(self, server: Server, path: str) -> None:
        self.answers.append(server.get(path))

    def bodies(self) -> list[bytes]:
        for thread in self.threads:
            thread.join(30)
        return [answer.body for answer in self.answers]


def test_an_instance_serves_as_many_requests_at_a_time_as_concurrency_says(server: Server) -> None:
    both = Both(server, "/shared")
    until(lambda: len(marks(server, "shared")) == 2, "both to be in their handlers")
    (server.live / "app/shared-go").touch()
    first, second = both.bodies()
    assert first == second


def test_there_are_never_more_instances_than_max_instances(server: Server) -> None:
    both = Both(server, "/one")
    until(lambda: marks(server, "one"), "the first to be in its handler")
    assert len(marks(server, "one")) == 1  # the second has nowhere to run
    (server.live / "app/one-go").touch()
    first, second = both.bodies()
    assert first == second


def test_min_instances_are_there_before_anybody_calls_and_stay(server: Server) -> None:
    until(lambda: len(marks(server, "kept")) == 2, "an instance for which nobody has called, behind the health fork")
    until(lambda: [one["state"] for one in instances(server, "/kept")] == ["idle"], "it to be ready")
    first = server.get("/kept")
    assert "desc=warm" in first.headers["server-timing"]
    assert server.get("/kept").body == first.body and len(marks(server, "kept")) == 2


def instances(server: Server, route: str) -> list[dict[str, Any]]:
    listed = server.rows()
    return [one for row in listed if row["function"] == route for one in row["instances"]]


def test_a_sync_handler_runs_in_a_thread(server: Server) -> None:
    assert server.get("/thread").json() == {"main": False}


def test_hooks_run_once_in_the_snapshot_and_once_in_each_instance(server: Server) -> None:
    seen = server.get("/hooks").json()
    before, after = seen["log"]
    assert before.startswith("before in ") and after == f"after in {seen['pid']}"
    assert before != f"before in {seen['pid']}"


@pytest.mark.parametrize("name", ["goes-on", "goes-on-streaming"])
def test_a_handler_that_wants_to_go_on_is_not_cancelled_when_its_client_leaves(server: Server, name: str) -> None:
    """Neither is one that answers in a stream: a response that began for nobody has begun in time."""
    with server.connect() as sock:
        sock.sendall(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: marks(server, f"{name}-begun"), "the handler to begin")
    (server.live / f"app/{name}-go").touch()
    until(lambda: marks(server, f"{name}-done"), "the handler to finish")


def test_a_handler_whose_body_is_longer_than_it_said_is_ended(server: Server) -> None:
    with pytest.raises(IncompleteRead):
        server.get("/longer")
    until(lambda: marks(server, "longer-ended"), "the handler to be cancelled")
    server.log(r"the response cannot be sent: its body is longer than its content-length")
    server.log(r"GET /longer 200 error")


def test_a_body_that_is_shorter_than_its_handler_said_is_an_error(server: Server) -> None:
    with pytest.raises(IncompleteRead):
        server.get("/shorter")
    server.log(r"the response cannot be sent: its body is shorter than its content-length")
    server.log(r"GET /shorter 200 error")


def test_an_edge_function_must_begin_its_response_in_time(server: Server) -> None:
    answer = server.get("/patient")
    assert (answer.status, answer.error) == (504, "EDGE_FUNCTION_INVOCATION_TIMEOUT")
    error = answer.json()["error"]
    assert (error["limit"], error["limit_ms"]) == ("first_byte_timeout", 1000)
    assert 1000 <= error["elapsed_ms"] < 15_000


def test_after_is_bounded_by_max_duration(server: Server) -> None:
    assert server.get("/too-late").body == b"fine"
    until(lambda: marks(server, "too-late-ended"), "the work to be cut off")


def test_after_survives_scale_down(server: Server) -> None:
    who = server.get("/scaled-down").body.decode()
    other = server.get("/scaled-down").body.decode()  # the first is not idle: its work is not done
    assert other != who and server.who_is(who)
    (server.live / "app/scaled-down-go").touch()
    until(lambda: not server.who_is(who) and not server.who_is(other), "both to finish and end")
    until(lambda: len(marks(server, "scaled-down-done")) == 2, "the work of both to be done")


def test_a_client_that_does_not_read_stops_the_generator(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: marks(server, "flood"), "the generator to begin")
        before = [0] * 50
        while before[0] != (now := len(marks(server, "flood"))):  # unchanged over fifty looks, half a second
            before = [*before[1:], now]
            time.sleep(0.01)
        assert now < 1000, "64 MB were made for a client that reads nothing"


def test_after_survives_a_deployment(serve: Serve) -> None:
    server = serve(project(), command="dev")
    assert server.get("/scaled-down").status == 200
    server.write("app/scaled-down/route.py", "def GET(): return 'new'\n")
    assert server.get("/scaled-down").body == b"new"
    (server.live / "app/scaled-down-go").touch()
    until(lambda: marks(server, "scaled-down-done"), "the old deployment's work")


def test_nothing_of_an_old_deployment_stays_once_those_who_waited_for_it_are_served(serve: Serve) -> None:
    route = """
        import asyncio, pathlib
        max_instances = 1
        min_instances = 1

        async def GET(req):
            while "wait" in req.query and not (pathlib.Path(__file__).parent / "go").exists():
                await asyncio.sleep(0.01)
            return "old"
    """
    server = serve({"app/queue/route.py": route}, command="dev")
    until(lambda: server.get("/queue").body == b"old", "an answer")
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(server.get, "/queue?wait") for _ in range(3)]
        until(lambda: queue(server) == (1, 2), "one to be served, and two to wait")
        server.write("app/queue/route.py", "def GET(): return 'new'")
        assert server.get("/queue").body == b"new"
        (server.live / "app/queue/go").touch()
        assert [one.result().body for one in asked] == [b"old"] * 3
    # Below the base: the snapshot and, if it was not ended yet, the instance of the new deployment.
    until(lambda: len(server.find("lampyr.runtime.snapshot").children()) == 1, "the old snapshot to end")


def queue(server: Server) -> tuple[int, int]:
    """How many requests are served, and how many wait."""
    (row,) = server.rows()
    return sum(one["in_flight"] for one in row["instances"]), row["waiting"]


def test_who_does_not_stop_at_its_deadline_is_ended_once_nobody_else_runs_beside_it(serve: Serve) -> None:
    server = serve({
        "app/deaf/route.py": f"""
            import asyncio, os
            runtime = "edge"
            max_duration = 1

            async def GET(req):
                while "deaf" in req.query:
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        pass
                return {WHO}
        """,
        "app/beside/route.py": "def GET(): return 'well'",
    })  # fmt: skip
    who = server.get("/deaf").body.decode()
    with ThreadPoolExecutor(2) as pool:
        deaf = [pool.submit(server.get, "/deaf?deaf") for _ in range(2)]
        assert [one.result().status for one in deaf] == [504, 504]
    until(lambda: server.who_is(who) is None, "the process to end")


def test_who_does_not_leave_when_it_has_finished_is_ended(serve: Serve) -> None:
    server = serve(
        {
            "app/stays/route.py": f"""
                import asyncio, atexit, os, time
                atexit.register(time.sleep, 600)

                async def GET(req):
                    print("it runs")
                    await asyncio.sleep(0.5)
                    return {WHO}
            """,
        },
        command="dev",
    )
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.get, "/stays")
        server.log("it runs")
        server.write("app/stays/route.py", "def GET(): return 'new'")
        assert server.get("/stays").body == b"new"
        who = asked.result().body.decode()
    until(lambda: server.who_is(who) is None, "the old process to end")


def test_a_second_sigterm_ends_what_the_first_waits_for(serve: Serve) -> None:
    server = serve(project())
    with server.connect() as sock:
        sock.sendall(b"GET /goes-on HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: marks(server, "goes-on-begun"), "the handler to begin")
        below = server.processes()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(server), "the drain to begin")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
    until(lambda: all(ended(one) for one in below), "every process to end")


def _refuses(server: Server) -> bool:
    try:
        server.get("/thread")
    except OSError:
        return True
    return False


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_traceback_is_shown_in_development_on_loopback_only(serve: Serve, host: str, shown: bool) -> None:
    server = serve({"app/x/route.py": "def GET(): raise OSError('no disk')\n"}, "-H", host, command="dev")
    answer = server.get("/x")
    assert answer.error == "FUNCTION_INVOCATION_FAILED"
    assert ("OSError: no disk" in json.dumps(answer.json())) == shown


EXHAUSTED = """
    import asyncio
    import os

    rate_limit = "none"

    async def GET(req):
        if "wait" in req.query:
            await asyncio.sleep(1)
        if "bomb" in req.query:
            raise MemoryError
        if "careful" in req.query:
            try:
                raise MemoryError
            except MemoryError:
                pass
        return f"{os.stat('/proc/self/ns/pid').st_ino} {os.getpid()}"
"""


@pytest.mark.parametrize("runtime", ["standard", "edge"])
def test_an_instance_that_had_no_memory_left_is_followed_by_a_fresh_one(serve: Serve, runtime: str) -> None:
    server = serve({"app/x/route.py": f'    runtime = "{runtime}"\n    max_instances = 1\n{EXHAUSTED}'})
    first = server.get("/x").body
    assert server.get("/x?careful").body == first, "what a handler has caught is its own affair"
    assert server.get("/x?bomb").error == "FUNCTION_OUT_OF_MEMORY"
    second = server.get("/x").body
    assert second != first and server.get("/x").body == second
    until(lambda: server.who_is(first.decode()) is None, "the first one to be gone")
    assert "a process that served no request" not in "\n".join(server.lines)


def test_what_runs_beside_it_finishes_in_peace(serve: Serve) -> None:
    server = serve({"app/x/route.py": f'    runtime = "edge"\n{EXHAUSTED}'})
    first = server.get("/x").body
    beside: list[bytes] = []
    thread = threading.Thread(target=lambda: beside.append(server.get("/x?wait").body))
    thread.start()
    time.sleep(0.3)
    assert server.get("/x?bomb").error == "FUNCTION_OUT_OF_MEMORY"
    assert server.get("/x").body != first
    thread.join()
    assert beside == [first]
