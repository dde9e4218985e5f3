"""What an import puts in the place of Python's own does not come between Lampyr and a function."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Server, running

# What nest_asyncio does when it is applied, as far as it matters: a handler may run the loop that runs it.
NESTS = """
    import asyncio
    from asyncio import tasks
    runtime = "edge"
    asyncio.Task = tasks.Task = tasks._CTask = tasks._PyTask
    asyncio._nest_patched = True

    def run_until_complete(loop, future):
        future = asyncio.ensure_future(future, loop=loop)
        while not future.done():
            loop._run_once()
        return future.result()

    def run_once(loop, plain=asyncio.BaseEventLoop._run_once):
        own = tasks._current_tasks.pop(loop, None)
        try:
            plain(loop)
        finally:
            if own is not None:
                tasks._current_tasks[loop] = own

    asyncio.SelectorEventLoop.run_until_complete = run_until_complete
    asyncio.SelectorEventLoop._run_once = run_once
    FIRST = asyncio.Event()

    async def GET(req):
        asyncio.get_running_loop().run_until_complete(FIRST.wait())
        return "after the other one"

    async def POST(req):
        FIRST.set()
        return "before"
"""
UVLOOP = """
    import asyncio, uvloop
    uvloop.install()

    async def GET():
        child = await asyncio.create_subprocess_exec("echo", "from a child", stdout=asyncio.subprocess.PIPE)
        return (await child.communicate())[0]
"""
# As gevent and eventlet do it: theirs work where their own loops run, and those do not run here.
GREENLETS = """
    import _thread, os, queue, select, socket, time

    def never(*_, **__):
        raise RuntimeError("this is for greenlets")

    class Socket(socket.socket):
        def __init__(self, *arguments, **more):
            never() if more else super().__init__(*arguments)

    class Queue:
        put = get = empty = never

    def start(*arguments, plain=_thread.start_new_thread):
        return plain(*arguments)

    del select.poll
    os.waitpid, socket.socket, queue.SimpleQueue, _thread.start_new_thread = never, Socket, Queue, start

    def GET():
        time.sleep(0.01)
        return "fine"

    def POST():
        os._exit(1)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    files = {"nests": NESTS, "uvloop": UVLOOP, "greenlets": GREENLETS}
    folder = tmp_path_factory.mktemp("patched")
    with running(folder, {f"app/{name}/route.py": text for name, text in files.items()}) as server:
        yield server


def test_a_handler_may_run_the_loop_that_runs_it_and_others_are_served_meanwhile(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /nests HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.log("console")
        assert server.request("POST", "/nests").body == b"before"
        told = b""
        while data := sock.recv(4096):
            told += data
    assert told.endswith(b"after the other one")


def test_who_installs_uvloop_can_start_programs(server: Server) -> None:
    assert server.get("/uvloop").body == b"from a child\n"


def test_sockets_threads_and_children_are_ours_whatever_is_patched(server: Server) -> None:
    for _ in range(3):
        assert [server.get("/greenlets").body for _ in range(2)] == [b"fine"] * 2
        assert server.request("POST", "/greenlets").error == "FUNCTION_CRASHED"
    server.log("warning: app/greenlets/route.py: the import has app patch threads; handlers without async")
