"""Requests that wait in the socket of an instance: one at a time all the same, taken back when it blocks or dies."""

from __future__ import annotations

import json
import re
import socket
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import Serve, Server, until

pytestmark = pytest.mark.alone

PROJECT = {
    "app/api/work/route.py": """
        import asyncio, json, os, pathlib, time
        GO = pathlib.Path(__file__).parents[2] / "go"
        running = 0
        rate_limit = "none"
        max_duration = 60

        async def POST(req):
            global running
            running += 1
            began_with = running
            what = await req.text()
            try:
                if what in ("block", "wait"):
                    print("it takes long")
                if what == "block":
                    while not GO.exists():
                        time.sleep(0.01)
                elif what == "wait":
                    while not GO.exists():
                        await asyncio.sleep(0.01)
                elif what == "print":
                    print("said by", req.id)
                elif what == "die":
                    time.sleep(0.2)
                    os._exit(7)
                return {"pid": os.getpid(), "at once": began_with, "what": what}
            finally:
                running -= 1
    """,
}
CLIENTS = 16


def ask(connection: socket.socket, what: str) -> tuple[int, bytes]:
    """One request over a kept connection."""
    connection.sendall(
        b"POST /api/work HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(what), what.encode())
    )
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError(f"cut after {data!r}")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), body


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(PROJECT)


def go(server: Server) -> None:
    """Let those go on that block or wait."""
    (server.live / "app/go").touch()


def flood(server: Server, rounds: int) -> Counter[int]:
    """CLIENTS kept connections, each with one quick request after another; how often which process answered."""
    pids: Counter[int] = Counter()

    def client(_: int) -> None:
        with server.connect() as connection:
            for _ in range(rounds):
                status, body = ask(connection, "quick")
                assert status == 200, body
                answer = json.loads(body)
                assert answer["at once"] == 1
                pids[answer["pid"]] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    return pids


def test_quick_requests_wait_for_one_another_instead_of_waking_more_processes(server: Server) -> None:
    flood(server, 100)
    pids = flood(server, 200)
    assert sum(pids.values()) == CLIENTS * 200
    busiest = sum(count for _, count in pids.most_common(8))
    assert busiest > 0.7 * sum(pids.values()), pids


@pytest.mark.parametrize("how", ["block", "wait"])
def test_nobody_waits_for_one_that_turns_out_slow(server: Server, how: str) -> None:
    flood(server, 150)
    begun = threading.Event()

    def quick(_: int) -> None:
        """Requests before the slow one and while it runs, which it does until these have been answered."""
        left = 60
        with server.connect() as connection:
            while left:
                left -= begun.is_set()
                status, body = ask(connection, "quick")
                assert status == 200 and json.loads(body)["at once"] == 1

    with ThreadPoolExecutor(CLIENTS + 1) as pool, server.connect() as connection:
        quick_ones = [pool.submit(quick, number) for number in range(CLIENTS)]
        slow = pool.submit(ask, connection, how)
        server.log("it takes long")
        begun.set()
        for one in quick_ones:
            one.result()
        assert not slow.done()
        go(server)
        assert slow.result()[0] == 200


def test_a_death_fails_only_the_request_that_ran(server: Server) -> None:
    flood(server, 150)
    statuses: Counter[int] = Counter()

    def client(number: int) -> None:
        with server.connect() as connection:
            for turn in range(40):
                status, _ = ask(connection, "die" if number == 0 and turn % 10 == 5 else "quick")
                statuses[status] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    assert statuses == {502: 4, 200: CLIENTS * 40 - 4}


@pytest.mark.parametrize("runtime", ["standard", "edge"])
def test_every_line_stands_under_the_id_of_who_printed_it(serve: Serve, runtime: str) -> None:
    text = f'runtime = "{runtime}"\n' + textwrap.dedent(PROJECT["app/api/work/route.py"])
    server = serve({"app/api/work/route.py": text})
    flood(server, 40)

    def client(_: int) -> None:
        with server.connect() as connection:
            for _ in range(50):
                assert ask(connection, "print")[0] == 200

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))

    def said() -> list[re.Match[str]]:
        return [found for line in server.lines if (found := re.search(r"(\S+) \| said by (\S+)", line))]

    until(lambda: len(said()) == CLIENTS * 50, "all the lines")
    assert [found for found in said() if found[1] != found[2]] == []


def test_a_request_of_several_packets_does_not_wait_in_a_socket(server: Server) -> None:
    host, body = b"h" * 30_000, b"quick".ljust(16_000)

    def large(_: int) -> bytes:
        with server.connect() as connection:
            connection.sendall(
                b"POST /api/work HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b" % (host, len(body), body)
            )
            return connection.recv(65536)[9:12]

    for _ in range(3):
        flood(server, 150)
        with ThreadPoolExecutor(CLIENTS) as pool, server.connect() as connection:
            blocked = pool.submit(ask, connection, "block")
            assert {*pool.map(large, range(CLIENTS - 1))} == {b"200"}
            go(server)
            assert blocked.result()[0] == 200
        (server.live / "app/go").unlink()
    assert sum(flood(server, 20).values()) == CLIENTS * 20  # every frame was read whole
