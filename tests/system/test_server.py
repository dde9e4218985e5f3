"""The server as a whole: how it starts, what it refuses, how it stops, and what it survives."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from serving import WHO, Serve, Server, ended, until, write

HELLO = {
    "app/api/hello/route.py": """
        from lib import word

        async def GET():
            return word.WORD
    """,
    "lib/word.py": 'WORD = "hello"\n',
}


def _run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lampyr", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)


@pytest.mark.parametrize("command", ["dev", "start"])
def test_ready_line(serve: Serve, command: str) -> None:
    server = serve(HELLO, command=command)
    assert server.ready_line == f"lampyr: ready http://127.0.0.1:{server.port}"
    assert server.get("/api/hello").body == b"hello"


def test_ready_line_as_json(serve: Serve) -> None:
    server = serve(HELLO, "--json")
    ready = json.loads(server.ready_line)
    assert ready["event"] == "ready" and ready["url"] == f"http://127.0.0.1:{server.port}"
    assert "console" in ready and server.ready_line.startswith('{"event":"ready","url":"http://')


@pytest.mark.parametrize(("command", "signum", "code"), [("start", signal.SIGTERM, 0), ("dev", signal.SIGINT, 130)])
def test_stopping_leaves_nothing_behind(serve: Serve, command: str, signum: int, code: int) -> None:
    server = serve(HELLO, command=command)
    server.get("/api/hello")
    below = server.processes()
    assert len(below) >= 5  # gateway, control, base, function snapshot, instance
    assert server.stop(signum) == code
    assert all(ended(one) for one in below)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", server.port))


def test_sigterm_drains(serve: Serve) -> None:
    server = serve(
        {
            "app/slow/route.py": """
                import asyncio, pathlib
                GO = pathlib.Path(__file__).parents[1] / "go"
                async def GET():
                    print("began", flush=True)
                    while not GO.exists():
                        await asyncio.sleep(0.01)
                    return "done"
            """
        }
    )
    with server.connect() as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.log(r"\| began")
        server.process.send_signal(signal.SIGTERM)
        server.log(r"^lampyr: finishing what runs; a second signal ends it$")
        (server.live / "app/go").touch()
        data = b""
        while piece := sock.recv(4096):
            data += piece
    assert data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"done")
    assert server.stop() == 0


def test_sigterm_ends_a_connection_behind_the_stream_that_it_carries(serve: Serve) -> None:
    """The head of a stream has left long before: it could not say `connection: close`."""
    server = serve(
        {
            "app/slow/route.py": """
                import asyncio, pathlib
                GO = pathlib.Path(__file__).parents[1] / "go"
                async def GET():
                    yield "began"
                    while not GO.exists():
                        await asyncio.sleep(0.01)
                    yield "done"
            """
        }
    )
    with server.connect() as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        data = sock.recv(4096)
        server.process.send_signal(signal.SIGTERM)
        server.log(r"^lampyr: finishing what runs; a second signal ends it$")
        (server.live / "app/go").touch()
        sock.settimeout(20)  # the server waits 30 s for a client that keeps its connection
        while piece := sock.recv(4096):
            data += piece
    assert b"connection: close" not in data and data.endswith(b"4\r\ndone\r\n0\r\n\r\n")
    assert server.stop() == 0


@pytest.mark.parametrize("command", ["dev", "start"])
def test_instances_that_wait_end_by_themselves_with_the_server(serve: Serve, command: str) -> None:
    """An application's lifespan has its end, and so has what was given to atexit."""
    server = serve(
        {
            "app/asgi/route.py": """
                runtime = "edge"
                max_instances = 1
                async def app(scope, receive, send):
                    while scope["type"] == "lifespan":
                        if (await receive())["type"] == "lifespan.startup":
                            await send({"type": "lifespan.startup.complete"})
                        else:
                            print("the application has shut down", flush=True)
                            await send({"type": "lifespan.shutdown.complete"})
                            return
                    await send({"type": "http.response.start", "status": 200})
                    await send({"type": "http.response.body", "body": b"served"})
            """,
            "app/plain/route.py": """
                import atexit
                max_instances = 1  # no spare one
                atexit.register(lambda: print("the process leaves", flush=True))
                def GET():
                    return "served"
            """,
        },
        command=command,
    )
    assert server.get("/asgi").body == server.get("/plain").body == b"served"
    assert server.stop() == 0
    for said in ("the application has shut down", "the process leaves"):
        leaves = 2 if command == "start" else 1  # the health fork does, too
        assert len([line for line in server.lines if line.endswith(said)]) == leaves, server.lines


def test_port_in_use_names_its_owner(serve: Serve, tmp_path: Path) -> None:
    server = serve(HELLO)
    assert server.get("/api/hello").status == 200  # its connection is not the owner, though it has the port too
    write(tmp_path / "other", HELLO)
    done = _run("start", str(tmp_path / "other"), "--port", str(server.port))
    assert done.returncode == 1 and done.stdout == ""
    error, hint = done.stderr.strip().split("\n")[-2:]
    assert error.startswith(f"lampyr: error: cannot listen on 127.0.0.1:{server.port}: it is in use by python")
    assert f"(pid {server.process.pid})" in error and hint.startswith("hint: ")


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    write(tmp_path / "project", HELLO)
    done = _run("dev", str(tmp_path / "project"), "--port", "0", "--host", "192.0.2.1")  # RFC 5737: nobody's
    error, hint = done.stderr.strip().split("\n")[-2:]
    assert done.returncode == 1 and error.startswith("lampyr: error: cannot listen on 192.0.2.1:0: ")
    assert "--host" in hint and "another port" not in hint


def test_state_directory_in_use(serve: Serve) -> None:
    server = serve(HELLO)
    done = _run("start", str(server.root), "--port", "0")
    assert done.returncode == 1
    assert f"in use by another server (pid {server.process.pid})" in done.stderr


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "is not a project: looked for"),
        ({"app/api/x/route.py": "def GET(:\n  pass"}, "app/api/x/route.py:1"),
        ({"app/api/x/route.py": "import json\nraise OSError('no disk')\ndef GET(): pass"}, "app/api/x/route.py:2"),
        ({"app/api/x/route.py": 'runtime = "egde"\ndef GET(): pass'}, "runtime"),
        ({"app/api/x/route.py": "def GET(): pass", "lampyr.toml": "[server]\nprot = 1"}, "lampyr.toml:2"),
    ],
)
def test_a_project_that_cannot_be_served(tmp_path: Path, files: dict[str, str], says: str) -> None:
    root = tmp_path / "project"
    root.mkdir()
    write(root, files)
    done = _run("start", str(root), "--port", "0")
    assert done.returncode == 1 and done.stdout == ""
    assert says in done.stderr
    assert "lampyr: error: " in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("source", ["def GET(:\n  pass", "import nothing_of_this_name\ndef GET(): pass"])
def test_what_keeps_a_project_from_being_served_is_in_the_json_error_too(tmp_path: Path, source: str) -> None:
    root = tmp_path / "project"
    root.mkdir()
    write(root, {"app/api/x/route.py": source})
    error = json.loads(_run("start", str(root), "--port", "0", "--json").stdout)["error"]
    (problem,) = error["problems"]
    assert error["code"] == "BUILD" and (problem["file"], problem["line"]) == ("app/api/x/route.py", 1)
    assert problem["message"] and problem["hint"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = _run("dev", str(tmp_path / "nowhere"))
    assert done.returncode == 1 and "nowhere" in done.stderr


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path / "project", HELLO)
    done = _run("start", str(tmp_path / "project"), "--port", "0", "--state-dir", "/proc/lampyr")
    assert done.returncode == 1 and "state directory /proc/lampyr cannot be written" in done.stderr


def test_an_error_that_no_function_gave_is_in_the_log_under_its_id(serve: Serve) -> None:
    server = serve(HELLO)
    for method, path, status in [("GET", "/api/helo", 404), ("POST", "/api/hello", 405), ("GET", "/%zz", 400)]:
        answer = server.request(method, path)
        assert answer.status == status
        server.log(rf"^{method} {path} {status} [0-9.]+ ms {answer.headers['x-lampyr-id']}$")


# --- development


def test_the_next_request_after_a_save_sees_it(serve: Serve) -> None:
    server = serve(HELLO, command="dev")
    for number in range(10):
        server.write("lib/word.py", f'WORD = "{number}"\n')
        assert server.get("/api/hello").body == str(number).encode()
        server.write("app/api/new/route.py", f"def GET(): return 'n{number}'\n")
        assert server.get("/api/new").body == f"n{number}".encode()
    server.write(".env", "X=1\n")
    server.write("app/api/new/route.py", "import os\ndef GET(): return os.environ['X']\n")
    assert server.get("/api/new").body == b"1"
    server.write(".env", "X=2\n")
    assert server.get("/api/new").body == b"2"


def test_a_broken_route_leaves_the_others_working(serve: Serve) -> None:
    server = serve(HELLO, command="dev")
    server.write("app/api/broken/route.py", "def GET(:\n")
    broken = server.get("/api/broken")
    assert (broken.status, broken.error) == (500, "FUNCTION_INVOCATION_FAILED")
    assert "app/api/broken/route.py:1" in broken.body.decode()
    server.write("app/api/raises/route.py", "raise KeyError('at import')\ndef GET(): pass\n")
    assert "at import" in server.get("/api/raises").body.decode()
    server.log(r"app/api/raises/route.py:1: KeyError")
    assert server.get("/api/hello").body == b"hello"
    server.write("app/api/broken/route.py", "def GET(): return 'mended'\n")
    assert server.get("/api/broken").body == b"mended"


def test_problems_come_with_their_cure(serve: Serve) -> None:
    server = serve(HELLO | {"app/api/odd/route.py": "def get(): return 1\n"}, command="dev")
    server.log(r'^lampyr: warning: app/api/odd/route.py:1: get is not a handler.*\nhint: did you mean "GET"\?$')
    server.write("app/api/new/route.py", "def Post(): return 1\n")
    assert server.get("/api/new").status == 405
    server.log(r'^lampyr: warning: app/api/new/route.py:1: Post is not a handler.*\nhint: did you mean "POST"\?$')
    server.write("app/api/new/route.py", "import no_such_package\ndef GET(): return 1\n")
    told = server.get("/api/new").json()["error"]["traceback"]
    assert "runtime/snapshot.py" not in told and "\nhint: add 'no_such_package' to" in told
    server.log(
        r"^lampyr: error: .*'no_such_package'\nhint: add 'no_such_package' .*; functions import from /.*-packages$"
    )
    server.write("app/api/new/route.py", "from lampyr import JSONResponse\ndef GET(): return 1\n")
    server.get("/api/new")
    server.log(
        r"^lampyr: error: .*cannot import name 'JSONResponse'.*\nhint: return the dict or list, or Response.json"
    )
    server.write("lampyr.toml", "[server]\nprt = 1\n[functions]\nmemory = 1\n")
    server.get("/api/hello")
    server.log(r'^lampyr: error: lampyr.toml:2: .*"prt".*\nhint: did you mean "port"\?$')
    server.log(r"^lampyr: error: lampyr.toml:4: .*memory = 1 is not allowed.*\nhint: take it out.*$")
    assert sum("get is not a handler" in line for line in server.lines) == 1
    server.write("lampyr.toml", '[providers.local]\nkind = "echo"\n')
    server.get("/api/hello")
    server.log(r"^lampyr: warning: \[server\] or \[providers\] has changed.*\nhint: restart `lampyr dev`$")


def test_a_pipe_in_the_place_of_the_settings_keeps_nobody_waiting(serve: Serve) -> None:
    server = serve(HELLO, command="dev")
    os.mkfifo(server.root / "lampyr.toml")
    assert server.get("/api/hello").status == 200
    server.log(r"^lampyr: error: lampyr\.toml cannot be read: it is not a regular file\nhint: put a file in its place$")
    server.write("app/api/hello/route.py", "def GET(): return 'again'\n")
    (server.root / "lampyr.toml").unlink()
    assert server.get("/api/hello").body == b"again"


def test_a_save_does_not_cut_running_streams(serve: Serve) -> None:
    server = serve(
        {
            "app/stream/route.py": """
                import asyncio, pathlib
                GO = pathlib.Path(__file__).parents[1] / "go"
                async def GET():
                    async def parts():
                        yield "first "
                        while not GO.exists():
                            await asyncio.sleep(0.01)
                        yield "second"
                    return parts()
            """
        },
        command="dev",
    )
    with server.connect() as sock:
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = sock.recv(4096)
        while b"first" not in data:
            data += sock.recv(4096)
        server.write("app/stream/route.py", "def GET(): return 'new'\n")
        assert server.get("/stream").body == b"new"
        (server.root / "app/go").touch()
        while piece := sock.recv(4096):
            data += piece
    assert b"second" in data and data.endswith(b"0\r\n\r\n")


# --- dying processes


@pytest.mark.parametrize("module", ["lampyr.gateway", "lampyr.runtime.snapshot", "lampyr.control"])
def test_a_killed_process_is_replaced(serve: Serve, module: str) -> None:
    server = serve(HELLO)
    assert server.get("/api/hello").status == 200
    victim = server.find(module)
    victim.kill()
    until(lambda: ended(victim), "the victim to be dead")
    until(lambda: _answers(server), "an answer")
    until(lambda: server.find(module).pid != victim.pid, "the replacement")
    assert server.get("/api/hello").body == b"hello"


def test_a_killed_snapshot_comes_back(serve: Serve) -> None:
    server = serve({"app/x/route.py": f"import os\ndef GET(): return {WHO}\n"})
    instance = server.who_is(server.get("/x").body.decode())
    assert instance is not None
    snapshot = instance.parent()
    assert snapshot is not None and snapshot.parent() == server.find("lampyr.runtime.snapshot")
    snapshot.kill()
    until(lambda: ended(snapshot), "the snapshot to be gone")
    until(lambda: ended(instance), "its instances to be gone")
    until(lambda: _answers(server, "/x"), "an answer")


def test_killing_the_supervisor_ends_everything(serve: Serve) -> None:
    server = serve(HELLO)
    server.get("/api/hello")
    below = server.processes()
    server.process.kill()
    server.process.wait(60)
    until(lambda: all(ended(one) for one in below), "everything to end")


def _answers(server: Server, path: str = "/api/hello") -> bool:
    try:
        return server.get(path).status == 200
    except OSError:
        return False


def test_a_state_folder_that_cannot_be_written_for_a_while_is_no_end_of_a_function(serve: Serve) -> None:
    server = serve({"app/x/route.py": "def GET(): return 'old'\n"}, command="dev")
    assert server.get("/x").body == b"old"
    tmp = server.root / ".lampyr/tmp"
    tmp.rename(tmp.with_name("elsewhere"))
    tmp.touch()
    server.write("app/x/route.py", "def GET(): return 'new'\n")
    assert server.get("/x").error == "FUNCTION_THROTTLED"
    server.log("error: /x: it cannot be imported: .*: the server cannot make its process: .*Not a directory")
    tmp.unlink()
    tmp.with_name("elsewhere").rename(tmp)
    until(lambda: server.get("/x").body == b"new", "the next attempt")
