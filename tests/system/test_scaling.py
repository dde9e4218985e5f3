"""From none to many and back: bursts, spare instances, streams that were left, instances that died."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter

import pytest
from serving import WHO, Serve, Server, ended, settled, until

PROJECT = {
    "app/gate/route.py": f"""
        import asyncio, os, pathlib
        idle_timeout = 1
        rate_limit = "none"

        async def GET():
            print("gate entered", flush=True)
            while not pathlib.Path("open").exists():
                await asyncio.sleep(0.01)
            return {WHO}
    """,
    "app/stream/route.py": """
        import asyncio
        idle_timeout = 0.2
        rate_limit = "none"

        async def GET():
            while True:
                yield b"x" * 1024
                await asyncio.sleep(0.01)
    """,
    "app/kept/route.py": f"""
        import os
        min_instances = 2
        idle_timeout = 0

        def GET(): return {WHO}
    """,
    "app/wait/route.py": """
        import asyncio
        idle_timeout = 0.2
        rate_limit = "none"

        async def GET():
            await asyncio.sleep(1)
            return "waited"
    """,
    "app/one/route.py": """
        import asyncio
        max_instances = 1
        rate_limit = "none"

        async def GET():
            await asyncio.sleep(60)
    """,
}


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(PROJECT)


async def ask(server: Server, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode())
    answer = await reader.read()
    writer.close()
    return answer


def processes(server: Server) -> int:
    return len(server.processes())


def at_rest(server: Server) -> int:
    """The number of processes, once every function is imported and those that were needed for that have left."""

    def imported() -> bool:
        rows = server.rows()
        kept = {row["function"]: len(row["instances"]) for row in rows if row["instances"]}
        return kept == {"/kept": 2} and all(row["snapshot"] == "ready" for row in rows)

    until(imported, "imports to end", context=server.lines[-10:])
    return int(settled(lambda: processes(server)))


def states(server: Server, route: str) -> list[str]:
    """Those of a function's instances."""
    return sorted(one["state"] for row in server.rows() if row["function"] == route for one in row["instances"])


@pytest.mark.alone
def test_a_burst_is_answered_and_everything_it_started_goes(server: Server) -> None:
    before = at_rest(server)

    async def burst() -> list[bytes]:
        return await asyncio.gather(*(ask(server, "/wait") for _ in range(200)))

    answers = asyncio.run(burst())
    assert Counter(answer.split()[1] for answer in answers) == {b"200": 200}
    until(lambda: processes(server) == before, "no instance")


def test_a_busy_function_has_a_spare_instance_and_the_next_call_is_warm(server: Server) -> None:
    before = at_rest(server)

    async def at(*wanted: str) -> None:
        await asyncio.to_thread(until, lambda: states(server, "/gate") == [*wanted], f"instances that are {wanted}")

    async def calls() -> list[bytes]:
        first = asyncio.create_task(ask(server, "/gate"))
        await at("busy", "idle")
        second = asyncio.create_task(ask(server, "/gate"))
        await at("busy", "busy", "idle")
        (server.live / "open").write_text("")
        return [await first, await second]

    first, second = asyncio.run(calls())
    assert b"desc=cold" in first and b"desc=warm" in second
    assert first.rsplit(b"\r\n")[-1] != second.rsplit(b"\r\n")[-1]
    until(lambda: processes(server) == before, "no instance")


def test_streams_that_were_left_leave_nothing_behind(server: Server) -> None:
    before = at_rest(server)
    for _ in range(3):
        for connection in [server.connect() for _ in range(8)]:
            connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4096)
            connection.close()
    until(lambda: processes(server) == before, "no instance")


def test_min_instances_are_there_again_after_a_death(server: Server) -> None:
    before = at_rest(server)
    who = server.get("/kept").body.decode()
    victim = server.who_is(who)
    assert victim is not None
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: ended(victim) and processes(server) == before, "as many as before")
    assert server.get("/kept").body.decode() != who


def test_what_dies_before_it_serves_anything_is_not_started_over_and_over(serve: Serve) -> None:
    server = serve(
        {
            "app/x/route.py": """
                import os
                from lampyr import after_restore
                min_instances = 1
                after_restore(lambda: (print("restored", flush=True), os._exit(3)))

                def GET(): return "never"
            """
        },
        command="dev",  # `start` would refuse it
    )
    until(lambda: restored(server) >= 2, "a second try")
    assert server.get("/x").status == 502
    assert restored(server) <= 5


def restored(server: Server) -> int:
    return sum("restored" in line for line in server.lines)


def test_beyond_the_queue_there_is_a_503_with_retry_after(server: Server) -> None:
    connections = []
    for _ in range(1 + 1000):
        connections.append(server.connect())
        connections[-1].sendall(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = until(lambda: refusal(server), "a refusal", 60)
    assert re.search(rb"\r\nretry-after: \d+\r\n", answer) and b"FUNCTION_THROTTLED" in answer
    for connection in connections:
        connection.close()


def refusal(server: Server) -> bytes:
    """What one more request is answered, if it is answered soon."""
    with server.connect() as connection:
        connection.settimeout(0.5)
        connection.sendall(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            answer = connection.recv(65536)
        except TimeoutError:
            return b""
        assert b" 503 " in answer, answer
        return answer
