"""Event loops that are blocked, and instances that grow: they are named, and others take their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from serving import WHO, Answer, Serve, Server, until

BLOCKING = f"""
import asyncio, os, pathlib, time
runtime = "edge"
first_byte_timeout = 25

async def GET(req):
    if req.query.get("stream"):
        return stream()
    while req.query.get("block") == "until-go":
        if (pathlib.Path(__file__).parent / "go").exists():
            return {WHO}
        time.sleep(0.05)
    if req.query.get("block"):
        time.sleep(float(req.query.get("block")))  # the line to be named
    return {WHO}

async def stream():
    yield "begun "
    await asyncio.sleep(60)
    yield "never"
"""
LINE = 1 + BLOCKING.split("\n").index('        time.sleep(float(req.query.get("block")))  # the line to be named')


class Background:
    """A request that is answered some time."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self.answers: list[Answer] = []
        self._thread = threading.Thread(target=lambda: self.answers.append(ask()))
        self._thread.start()

    def result(self) -> Answer:
        self._thread.join(60)
        return self.answers[0]


def begun(server: Server, path: str) -> bytes:
    """The body of a stream that is cut."""
    with server.connect() as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received


def test_who_blocks_a_loop_is_named_and_then_replaced(serve: Serve) -> None:
    server = serve({"app/x/route.py": BLOCKING})
    first = server.get("/x").body
    streamed: list[bytes] = []
    stream = threading.Thread(target=lambda: streamed.append(begun(server, "/x?stream=1")))
    stream.start()
    until(lambda: server.get("/x").body == first, "an instance that serves both")
    started = time.monotonic()
    blocking = Background(lambda: server.get("/x?block=40"))

    server.log(r"/x: an event loop has been blocked for 5 s")  # by whom of the two, nobody can know from outside
    server.log(rf'/x \| +File ".*app/x/route\.py", line {LINE} in GET')
    other = server.get("/x")  # at once, from another instance
    assert (other.status, other.body != first) == (200, True)

    answer = blocking.result()
    took_s = time.monotonic() - started
    assert (answer.status, answer.error) == (504, "EDGE_FUNCTION_INVOCATION_TIMEOUT"), server.lines[-20:]
    told = answer.json()["error"]
    assert (told["limit"], told["limit_ms"]) == ("event_loop", 15000) and told["elapsed_ms"] > 14_000
    assert 14 < took_s < 35  # the handler blocks for 40 s
    stream.join(10)
    assert streamed[0].count(b"begun") == 1 and not streamed[0].endswith(b"0\r\n\r\n"), "cut, and visibly"
    server.log(r"/x: an instance is replaced: its event loop was blocked for 15 s")
    until(lambda: server.who_is(first.decode()) is None, "the end of the blocked process")
    assert server.get("/x").body != first


def test_nobody_is_sent_behind_a_handler_that_has_blocked_its_loop_for_two_seconds(serve: Serve) -> None:
    """Also where its client has left: whoever is there already waits, whoever comes is served elsewhere."""
    server = serve({"app/x/route.py": BLOCKING})
    first = server.get("/x").body
    with server.connect() as client:
        client.sendall(b"GET /x?block=4.5 HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.3)
    time.sleep(2.2)
    began_s = time.monotonic()
    other = server.get("/x")
    assert other.body != first and time.monotonic() - began_s < 1
    assert not [line for line in server.lines if "blocked" in line], "nobody is named yet"


def test_a_loop_that_was_silent_gets_requests_again(serve: Serve) -> None:
    server = serve({"app/x/route.py": f"max_instances = 1\n{BLOCKING}"})
    first = server.get("/x").body
    blocking = Background(lambda: server.get("/x?block=3"))
    time.sleep(2.5)
    assert server.get("/x").body == first, "there is no other one: it waits"
    assert blocking.result().body == first and server.get("/x").body == first


def test_who_asks_behind_a_handler_that_is_being_ended_gets_another_instance(serve: Serve) -> None:
    """Between its 504 and its end 50 ms later nobody may join a loop that does not turn, to time out in there."""
    server = serve({"app/x/route.py": BLOCKING.replace("first_byte_timeout = 25", "max_duration = 1")})
    first = server.get("/x").body
    for _ in range(2):
        answer = server.get("/x?block=40")
        assert (answer.status, answer.error) == (504, "EDGE_FUNCTION_INVOCATION_TIMEOUT")
        other = server.get("/x")
        assert (other.status, other.body != first) == (200, True), server.lines[-10:]
        first = other.body


def test_who_stops_at_its_deadline_keeps_its_instance(serve: Serve) -> None:
    server = serve({"app/x/route.py": BLOCKING.replace("first_byte_timeout = 25", "max_duration = 1")})
    first = server.get("/x").body
    assert not begun(server, "/x?stream=1").endswith(b"0\r\n\r\n")
    assert first in [server.get("/x").body for _ in range(3)]  # which may have been given a spare one meanwhile


def test_a_loop_that_turns_again_is_trusted_again(serve: Serve) -> None:
    server = serve({"app/x/route.py": "idle_timeout = 3\n" + BLOCKING})
    first = server.get("/x").body
    blocking = Background(lambda: server.get("/x?block=until-go"))
    (id,) = server.log(r"/x (\w{24}): an event loop has been blocked for 5 s").groups()
    server.log(rf'/x {id} \|   File ".*app/x/route\.py", line \d+ in GET$')
    shown = [line for line in server.lines if " | " in line and " in " in line and 'File "' in line]
    assert len(shown) == 1, "what is below the handler, asyncio and Lampyr itself, says nothing to whoever wrote it"
    assert server.get("/x").body != first
    (server.live / "app/x/go").touch()
    answer = blocking.result()
    assert (answer.status, answer.body, answer.headers["x-lampyr-id"]) == (200, first, id)
    server.log(r"/x: the event loop that was blocked turns again, after \d+ s")
    until(lambda: server.get("/x").body == first, "a request to the first instance")


GROWING = f"""
import asyncio, os
memory = 128
runtime = "RUNTIME"
kept = []

async def GET(req):
    if req.query.get("stream"):
        return stream()
    kept.append(bytearray(os.urandom(1024)) * (int(req.query.get("mib")) * 1024))
    return {WHO}

async def stream():
    while not os.path.exists(os.path.dirname(__file__) + "/go"):
        yield "."
        await asyncio.sleep(0.1)
    yield "end"
"""


def grow(server: Server) -> set[bytes]:
    """Call until another instance has answered, 2 MiB a time; who has."""
    seen: set[bytes] = set()

    def another() -> bool:
        time.sleep(0.15)  # the instance is weighed once a second, and must not be full before
        answer = server.get("/x?mib=2")
        assert answer.status == 200, server.lines[-10:]
        seen.add(answer.body)
        return len(seen) > 1

    until(another, "another instance", 60, server.lines[-10:])
    return seen


@pytest.mark.parametrize("runtime", ["standard", "edge"])
def test_an_instance_that_grows_is_followed_by_another_before_it_is_ended_for_that(serve: Serve, runtime: str) -> None:
    server = serve({"app/x/route.py": GROWING.replace("RUNTIME", runtime)})
    assert len(grow(server)) == 2
    server.log(r"/x: an instance is followed by another one: it uses \d+ of its 128 MiB")
    assert "the process ended" not in "\n".join(server.lines)


def test_what_runs_in_an_edge_instance_that_is_followed_by_another_ends_in_peace(serve: Serve) -> None:
    server = serve({"app/x/route.py": GROWING.replace("RUNTIME", "edge")})
    server.get("/x?mib=1")
    streamed: list[bytes] = []
    stream = threading.Thread(target=lambda: streamed.append(begun(server, "/x?stream=1")))
    stream.start()
    grow(server)
    assert not streamed
    (server.live / "app/x/go").touch()
    stream.join(20)
    assert b"end" in streamed[0]
