"""`max_duration` against handlers that do not let go: the answer comes in time, nobody is left, the log says where."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import pytest
from serving import Server, until, write

# Each is the body of an `async def`, but for those in SYNC. `# here` marks the line that the log has to name.
ASYNC = {
    "spin": """
        while True:  # here
            pass  # here
    """,
    "sleep": "time.sleep(30)  # here",
    "await": "await asyncio.sleep(30)  # here",
    "regex": "re.match('(a+)+$', 'a' * 60 + 'b')  # here",
    "sum": "sum(range(10**13))  # here",  # in C, with the GIL, and without a look at signals
    "hash": "hashlib.pbkdf2_hmac('sha256', b'x', b'x', 10**9)  # here",
    "gil": "ctypes.PyDLL(None).sleep(30)  # here",
    "swallow": """
        while True:
            try:
                await asyncio.sleep(30)  # here
            except BaseException:
                pass
    """,
    "swallow-and-spin": """
        try:
            await asyncio.sleep(30)  # here
        except BaseException:
            while True:
                pass
    """,
    "signals": """
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(one, signal.SIG_IGN)
        while True:  # here
            time.sleep(1)  # here
    """,
    "finally": """
        try:
            await asyncio.sleep(30)  # here
        finally:
            time.sleep(30)
    """,
    "answers-late": """
        three_deep()
        try:
            await asyncio.sleep(30)  # here
        except asyncio.CancelledError:
            return "too late"
    """,
    "daemons": """
        three_deep()
        await asyncio.sleep(30)  # here
    """,
    "daemons-that-spin": """
        three_deep(spin=True)
        while True:  # here
            pass  # here
    """,
    "holds-the-pipe": """
        subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1; done"], start_new_session=True)
        await asyncio.sleep(30)  # here
    """,
    "waits-for-a-child": """
        subprocess.run(["sh", "-c", "trap '' TERM; sleep 30 & wait; sleep 30"])  # here
    """,
    "thread": """
        threading.Thread(target=time.sleep, args=(30,)).start()
        await asyncio.to_thread(time.sleep, 30)  # here
    """,
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)  # here",
    "prints": """
        while True:  # here
            print("x" * 100)  # here
    """,
}
SYNC = {
    "sync-sleep": "time.sleep(30)  # here",
    "sync-spin": """
        while True:  # here
            pass  # here
    """,
    "sync-gil": "sum(range(10**13))  # here",
    "sync-prints": """
        while True:  # here
            os.write(2, b"x" * 100 + b"\\n")  # here
    """,
    "sync-swallow": """
        while True:
            try:
                time.sleep(30)  # here
            except BaseException:
                pass
    """,
}
# The interpreter is gone or stands still: nobody can say where.
SILENT = {
    "another-program": "os.execvp('sh', ['sh', '-c', \"trap '' TERM; while :; do :; done\"])",
    "deaf": """
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        while True:
            pass
    """,
}
STREAMS = {
    "yields": """
        while True:
            yield "x"
            await asyncio.sleep(0.05)
    """,
    "hangs": """
        yield "x"
        time.sleep(30)
    """,
    "ends-when-told": """
        try:
            yield "x"
            await asyncio.sleep(30)
        except BaseException:
            return
    """,
    "goes-on": """
        while True:
            try:
                yield "x"
                await asyncio.sleep(0.05)
            except BaseException:
                yield "y"
    """,
}
HEAD = """
import asyncio, ctypes, hashlib, os, re, signal, subprocess, threading, time
max_duration = 1
max_instances = 1  # no spare one


def three_deep(spin=False):
    if os.fork() == 0:
        for _ in range(3):
            os.setsid()
            if os.fork():
                os._exit(0)
        while True:
            spin or time.sleep(1)
"""


def route(name: str, start: str, body: str) -> dict[str, str]:
    """A file with a GET that does `body`, and a POST that answers."""
    text = (
        f"{HEAD}\n\n{start}\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n\n\ndef POST(): return 'fine'\n"
    )
    return {f"app/{name}/route.py": text}


def project() -> dict[str, str]:
    files: dict[str, str] = {}
    for name, body in {**ASYNC, **SILENT}.items():
        files |= route(name, "async def GET():", body)
    for name, body in SYNC.items():
        files |= route(name, "def GET():", body)
    for name, body in STREAMS.items():
        files |= route(name, "async def GET():", body)
    return files


FILES = project()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("limits") / "project"
    write(root, FILES)
    server = Server(root, "start")
    until(lambda: all(one["snapshot"] == "ready" for one in server.rows()), "every function to be imported", 60)
    yield server
    server.stop()


def ready(server: Server, name: str) -> set[int]:
    """Have an instance there, so that the limit is all the handler's; the processes that may stay."""
    assert server.request("POST", f"/{name}").body == b"fine"
    own = {one["pid"] for it in server.rows() if it["function"] == f"/{name}" for one in it["instances"]}
    assert own
    return {one.pid for one in server.processes()} - own


def overdue(server: Server, name: str) -> str:
    """Ask for what takes too long. The answer, the processes and the next request are as they should be; its id."""
    stay = ready(server, name)
    answer = server.get(f"/{name}")
    assert (answer.status, answer.error) == (504, "FUNCTION_INVOCATION_TIMEOUT")
    error = answer.json()["error"]
    assert (error["limit"], error["limit_ms"]) == ("max_duration", 1000)
    assert 1000 <= error["elapsed_ms"] < 15_000
    until(lambda: {one.pid for one in server.processes()} <= stay, "everything of it to be gone")
    assert server.request("POST", f"/{name}").body == b"fine"
    server.log(rf"^GET /{name} 504 timeout .*{error['id']}$")
    return str(error["id"])


@pytest.mark.parametrize("name", [*ASYNC, *SYNC])
def test_who_does_not_let_go_is_answered_ended_and_shown(server: Server, name: str) -> None:
    id = overdue(server, name)
    lines = FILES[f"app/{name}/route.py"].splitlines()
    here = "|".join(str(number) for number, line in enumerate(lines, 1) if "# here" in line)
    server.log(rf'^/{name} {id} \| .*{name}/route\.py", line ({here})\b')


@pytest.mark.parametrize("name", SILENT)
def test_who_cannot_say_where_it_is_ends_all_the_same(server: Server, name: str) -> None:
    overdue(server, name)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_cut_visibly(server: Server, name: str) -> None:
    stay = ready(server, name)
    data = b""
    with server.connect() as sock:
        sock.sendall(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            while piece := sock.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
    assert b"\r\nx\r\n" in data and b"y" not in data.partition(b"\r\n\r\n")[2]
    assert not data.endswith(b"0\r\n\r\n")
    until(lambda: {one.pid for one in server.processes()} <= stay, "everything of it to be gone")
    assert server.request("POST", f"/{name}").body == b"fine"
    server.log(rf"^GET /{name} 200 timeout ")


def test_the_stack_is_the_users(server: Server) -> None:
    """What lies around the handler, asyncio and Lampyr itself, says nothing to whoever wrote it."""
    id = overdue(server, "await")
    told = [line for line in server.lines if id in line and 'File "' in line]
    assert told and all(re.search(r"await/route\.py|asyncio/tasks\.py", line) for line in told), told


AFTER = {
    "waits": "await asyncio.sleep(0.3)",
    "too-long": "await asyncio.sleep(30)",
    "blocks": "time.sleep(30)",
}


@pytest.fixture(scope="module")
def afters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("afters") / "project"
    for name, body in AFTER.items():
        start = f"async def work():\n    print('at work', flush=True)\n    {body}\n"
        write(
            root, route(name, f"from lampyr import after\n\n{start}\n\nasync def GET():", "after(work)\nreturn 'fine'")
        )
    server = Server(root, "start")
    yield server
    server.stop()


@pytest.mark.parametrize(("name", "ended"), [("waits", ""), ("too-long", " timeout"), ("blocks", " timeout")])
def test_what_runs_after_is_logged_and_measured_under_the_same_id(afters: Server, name: str, ended: str) -> None:
    answer = afters.get(f"/{name}")
    id = answer.headers["x-lampyr-id"]
    assert answer.body == b"fine"
    afters.log(rf"^/{name} {id} \| at work$")
    found = afters.log(rf"^GET /{name} 200{ended} ([\d.]+) ms.*, after\(\) ([\d.]+) ms {id}$")
    assert float(found[2]) >= (950 if ended else 250)  # it begins to count when it has read the answer
    assert afters.request("POST", f"/{name}").body == b"fine"
