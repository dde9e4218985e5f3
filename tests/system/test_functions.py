"""A route file on disk is a function: what it may answer, how it is cut, what becomes of its processes."""

from __future__ import annotations

import json
import re
import socket
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from serving import WHO, Serve, Server, command_lines, running, until

PROJECT = {
    "app/api/hello/route.py": """
        import os
        from lampyr import Request, Response

        async def GET(req: Request) -> Response:
            return Response.json({"hello": req.query.get("name"), "who": WHO})

        def POST(req):
            return {"sync": True}
    """.replace("WHO", WHO),
    "app/api/kinds/[kind]/route.py": """
        async def GET(req):
            kind = req.params["kind"]
            if kind == "text":
                return "héllo"
            if kind == "bytes":
                return b"\\x00\\x01"
            if kind == "generator":
                async def parts():
                    yield "one,"
                    yield b"two"
                return parts()
            return [kind]
    """,
    "app/api/fails/[how]/route.py": """
        import asyncio, os
        secret_plan = "do not tell"

        async def GET(req):
            how = req.params["how"]
            if how == "raise":
                raise ValueError(f"oh no {secret_plan}")
            if how == "exit":
                os._exit(3)
            if how == "none":
                return None
            if how == "fork":
                if os.fork() == 0:
                    raise ValueError("in the child")
                await asyncio.sleep(0.2)
            if how == "mute":
                os.write(1, b"the last word")
                os.close(1), os.close(2)
            if how == "late":
                async def parts():
                    yield "first"
                    raise RuntimeError("late")
                return parts()
            return "fine"
    """,
    "app/api/silent/route.py": """
        import sys
        sys.stdout = sys.stderr = None

        def GET(): return "fine"
    """,
    "app/api/slow/[how]/route.py": """
        import asyncio, os, subprocess, time
        max_duration = 1

        async def GET(req):
            how = req.params["how"]
            if how == "spin":
                while True:
                    pass
            if how == "await":
                await asyncio.sleep(30)  # the line that waits
            if how == "swallow":
                while True:
                    try:
                        await asyncio.sleep(30)
                    except BaseException:
                        pass
            if how == "child":
                subprocess.Popen(["sh", "-c", "setsid sleep 4321 & setsid setsid sleep 4321"])
                await asyncio.sleep(30)
            if how == "stream":
                async def parts():
                    while True:
                        yield "x"
                        await asyncio.sleep(0.1)
                return parts()
            return {"pid": os.getpid()}

        def POST(req):
            time.sleep(30)
    """,
    "app/api/over/[how]/route.py": """
        import asyncio, os, time
        from lampyr import Response, sse, ui_messages
        max_duration = 1

        async def waits():
            yield "one"
            await asyncio.sleep(30)

        def stuck():
            yield "one"
            while True:
                pass

        async def dies():
            yield "one"
            await asyncio.sleep(0.1)
            os._exit(3)

        async def half():
            yield "data: one\\n\\ndata: tw"
            await asyncio.sleep(30)

        EVENTS = {"content-type": "text/event-stream"}
        MAKE = {
            "waits": lambda: sse(waits()),
            "stuck": lambda: sse(stuck()),
            "dies": lambda: sse(dies()),
            "ui": lambda: ui_messages(waits()),
            "half": lambda: Response(half(), headers=EVENTS),
            "zipped": lambda: Response(waits(), headers=EVENTS | {"content-encoding": "zstd"}),
        }

        async def GET(req):
            return MAKE[req.params["how"]]()
    """,
    "app/api/application/[...all]/route.py": """
        import asyncio
        max_duration = 1

        async def app(scope, receive, send):
            fields = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"data: one\\n\\n", "more_body": True})
            if scope["path"].endswith("fails"):
                raise RuntimeError("late")
            await asyncio.sleep(30)
    """,
    "app/api/leave/[how]/route.py": """
        import asyncio
        runtime = "edge"
        
        async def GET(req):
            how = req.params["how"]

            async def parts():
                try:
                    while True:
                        print(f"{how} began", flush=True)
                        yield "tick "
                        await asyncio.sleep(0.05)
                finally:
                    print(f"{how} aborted: {req.signal.aborted}", flush=True)
            if how == "stream":
                return parts()
            try:
                print(f"{how} began", flush=True)
                await asyncio.sleep(30)
            finally:
                print(f"{how} aborted: {req.signal.aborted}", flush=True)
    """,
    "app/api/brief/route.py": """
        import os
        idle_timeout = 1

        async def GET():
            return {"who": WHO}
    """.replace("WHO", WHO),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("functions"), PROJECT) as server:
        yield server


def test_json_in_its_own_process(server: Server) -> None:
    answer = server.get("/api/hello?name=Ada")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["hello"] == "Ada"
    assert server.who_is(answer.json()["who"])
    assert len(answer.headers["x-lampyr-id"]) > 10
    assert answer.headers["server-timing"].startswith("queue;dur=")


def test_the_first_call_is_cold_and_the_second_warm(server: Server) -> None:
    timing = server.get("/api/kinds/cold").headers["server-timing"]
    assert "desc=" in timing  # another test may have been there before
    until(lambda: "desc=warm" in server.get("/api/kinds/cold").headers["server-timing"], "a warm one")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import no_such_module", 500),
        ("import time\nmax_duration = 1\ntime.sleep(3)", 504),
        ("import lampyr, time\nmax_duration = 1\nlampyr.after_restore(lambda: time.sleep(3))", 504),
    ],
    ids=["an import that fails", "a slow import", "a slow start"],
)
def test_who_waits_in_vain_for_the_first_instance_is_not_told_that_it_was_warm(
    serve: Serve, code: str, status: int
) -> None:
    answer = serve({"app/x/route.py": f"{code}\ndef GET(): ..."}, command="dev").get("/x")
    assert (answer.status, "desc=cold" in answer.headers["server-timing"]) == (status, True)


@pytest.mark.parametrize(
    ("kind", "content_type", "body"),
    [
        ("text", "text/plain;charset=UTF-8", "héllo".encode()),
        ("bytes", None, b"\x00\x01"),
        ("generator", None, b"one,two"),
        ("list", "application/json", b'["list"]'),
    ],
)
def test_what_a_handler_returns(server: Server, kind: str, content_type: str | None, body: bytes) -> None:
    answer = server.get(f"/api/kinds/{kind}")
    assert (answer.status, answer.body) == (200, body)
    if content_type:
        assert answer.headers["content-type"] == content_type


def test_a_sync_handler(server: Server) -> None:
    assert server.request("POST", "/api/hello").json() == {"sync": True}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/fails/raise", 500, "FUNCTION_INVOCATION_FAILED"),
        ("/api/fails/none", 500, "FUNCTION_INVOCATION_FAILED"),
        ("/api/fails/exit", 502, "FUNCTION_CRASHED"),
        ("/api/nowhere", 404, "NOT_FOUND"),
    ],
)
def test_errors_of_the_platform(server: Server, path: str, status: int, code: str) -> None:
    answer = server.get(path)
    assert (answer.status, answer.error, answer.json()["error"]["code"]) == (status, code, code)
    assert answer.json()["error"]["id"] == answer.headers["x-lampyr-id"]
    for word in (b"oh no", b"do not tell", b"route.py", b"Traceback", b"ValueError"):
        assert word not in answer.body
    assert server.get("/api/fails/fine").body == b"fine"


def test_the_log_has_what_the_answer_has_not(server: Server) -> None:
    id = server.get("/api/fails/raise").headers["x-lampyr-id"]
    server.log(rf"{id} \| ValueError: oh no")
    server.log(rf"GET /api/fails/raise 500 error [\d.]+ ms.* {id}")


def test_a_failure_after_the_first_byte_cuts_the_connection(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /api/fails/late HTTP/1.1\r\nHost: x\r\n\r\n")
        data = _read_all(sock)
    assert b"first" in data
    assert not data.endswith(b"0\r\n\r\n")


def test_a_child_that_goes_on_with_its_parents_invocation_does_not_answer_for_it(server: Server) -> None:
    assert [server.get("/api/fails/fork").body for _ in range(3)] == [b"fine"] * 3


def test_a_process_that_has_closed_its_output_serves_on(server: Server) -> None:
    assert server.get("/api/fails/mute").status == 200
    assert [server.get("/api/fails/not").error for _ in range(3)] == [None] * 3


def test_an_import_may_leave_nothing_to_print_to(server: Server) -> None:
    assert server.get("/api/silent").body == b"fine"


def test_method_not_allowed_and_options(server: Server) -> None:
    answer = server.request("DELETE", "/api/hello")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    answer = server.request("OPTIONS", "/api/hello")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    assert server.request("DELETE", "/nowhere").status == 404
    assert server.request("BREW", "/api/hello").status == 400


def test_a_body_that_is_too_large(server: Server) -> None:
    answer = server.request("POST", "/api/hello", b"x" * 4_500_001)
    assert (answer.status, answer.error) == (413, "FUNCTION_PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("how", ["spin", "await", "swallow", "child"])
def test_a_deadline_holds(server: Server, how: str) -> None:
    started = time.monotonic()
    answer = server.get(f"/api/slow/{how}")
    took_s = time.monotonic() - started
    assert (answer.status, answer.error) == (504, "FUNCTION_INVOCATION_TIMEOUT")
    error = answer.json()["error"]
    assert (error["limit"], error["limit_ms"]) == ("max_duration", 1000)
    assert 1000 <= error["elapsed_ms"] < 15_000 and took_s < 20  # it would take 30 s
    server.log(rf'/api/slow/\[how\] {error["id"]} \| .*slow/\[how\]/route.py", line \d+')
    until(lambda: not _sleepers(), "no descendant to be left")
    assert server.get("/api/slow/no").status == 200


def test_a_deadline_holds_for_a_sync_handler(server: Server) -> None:
    answer = server.request("POST", "/api/slow/sync")
    assert answer.error == "FUNCTION_INVOCATION_TIMEOUT"
    server.log(rf'{answer.headers["x-lampyr-id"]} \| .*route.py", line \d+')


def test_a_stream_over_its_deadline_is_cut_visibly(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /api/slow/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        data = _read_all(sock)
    assert data.count(b"\r\nx\r\n") >= 1
    assert not data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("over/waits", "FUNCTION_INVOCATION_TIMEOUT"),
        ("over/stuck", "FUNCTION_INVOCATION_TIMEOUT"),
        ("over/ui", "FUNCTION_INVOCATION_TIMEOUT"),
        ("over/dies", "FUNCTION_CRASHED"),
        ("application/waits", "FUNCTION_INVOCATION_TIMEOUT"),
        ("application/fails", "FUNCTION_INVOCATION_FAILED"),
        ("over/half", None),
        ("over/zipped", None),
    ],
)
def test_an_event_stream_that_is_cut_says_why(server: Server, path: str, code: str | None) -> None:
    """Also where its process can say nothing; never within an event, or where nobody could read it."""
    with server.connect() as sock:
        sock.sendall(f"GET /api/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = _read_all(sock)
    assert b"one" in data and not data.endswith(b"0\r\n\r\n")
    said = re.findall(rb"event: error\ndata: (.*)\n\n", data)
    if code is None:
        assert not said and b"error" not in data
        return
    (text,) = map(json.loads, said)
    if path.endswith("ui"):  # readers of the UI message stream refuse other keys
        assert text.keys() == {"type", "errorText"} and text["errorText"].startswith(code)
        return
    assert (text["type"], text["error"]["code"]) == ("error", code)
    assert text["error"].get("limit") == ("max_duration" if code.endswith("TIMEOUT") else None)
    assert f"x-lampyr-id: {text['error']['id']}".encode() in data


@pytest.mark.parametrize("how", ["stream", "answer"])
def test_a_client_that_leaves_cancels_the_handler(server: Server, how: str) -> None:
    with server.connect() as sock:
        sock.sendall(f"GET /api/leave/{how} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        server.log(rf"\| {how} began")
    server.log(rf"\| {how} aborted: True")


def test_scale_to_zero_and_back(server: Server) -> None:
    first = server.get("/api/brief").json()["who"]
    until(lambda: not instances(server, "/api/brief"), "the idle instance to end")
    assert not server.who_is(first)
    answer = server.get("/api/brief")
    assert answer.json()["who"] != first
    assert "desc=cold" in answer.headers["server-timing"]


def instances(server: Server, route: str) -> list[dict[str, Any]]:
    """A function's: where the machine is slow there is a spare one."""
    listed = server.rows()
    return [one for row in listed if row["function"] == route for one in row["instances"]]


def test_every_chunk_arrives_when_it_is_yielded(serve: Serve) -> None:
    server = serve(
        {
            "app/api/turns/route.py": """
                import pathlib, asyncio
                GO = pathlib.Path(__file__).parents[2] / "go"

                async def GET():
                    async def parts():
                        yield "first"
                        while not GO.exists():
                            await asyncio.sleep(0.01)
                        yield "second"
                    return parts()
            """
        }
    )
    with server.connect() as sock:
        sock.sendall(b"GET /api/turns HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while b"first" not in data:
            data += sock.recv(4096)
        (server.live / "app/go").touch()  # only now may the second chunk be made
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(4096)
    assert b"second" in data


def test_standard_is_cut_at_ten_seconds_and_edge_streams_on(serve: Serve) -> None:
    route = """
        import asyncio
        {runtime}
        async def GET():
            async def parts():
                for number in range(22):
                    yield f"{{number}} "
                    await asyncio.sleep(0.5)
            return parts()
    """
    server = serve(
        {
            "app/standard/route.py": route.format(runtime=""),
            "app/edge/route.py": route.format(runtime='runtime = "edge"'),
        }
    )
    socks = {path: server.connect() for path in ("standard", "edge")}
    for path, sock in socks.items():
        sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    data = {path: _read_all(sock) for path, sock in socks.items()}
    for sock in socks.values():
        sock.close()
    assert b"9 \r\n" in data["standard"] and b"21 \r\n" not in data["standard"]
    assert not data["standard"].endswith(b"0\r\n\r\n")
    assert b"21 \r\n" in data["edge"] and data["edge"].endswith(b"0\r\n\r\n")


def test_secrets_reach_the_function_and_no_log_or_error(serve: Serve) -> None:
    key = "sk-canary-9f8e7d6c5b4a"
    server = serve(
        {
            "app/api/env/route.py": """
                import os
                def GET():
                    print("the key is", os.environ["API_KEY"])
                    return {"length": len(os.environ["API_KEY"]), "mode": os.environ["WHICH"]}

                def POST():
                    raise ValueError(os.environ["API_KEY"])
            """,
            ".env": "WHICH=plain\n",
            ".env.production": "WHICH=production\n",
            ".env.local": f"API_KEY={key}\n",
        }
    )
    assert server.get("/api/env").json() == {"length": len(key), "mode": "production"}
    failed = server.request("POST", "/api/env")
    assert failed.status == 500 and key.encode() not in failed.body
    server.log(r"the key is \*\*\*")
    server.log(r"ValueError: \*\*\*")
    assert key not in "\n".join(server.lines)
    assert key not in command_lines(server.processes())


def _read_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def _sleepers() -> list[int]:
    return [one.pid for one in psutil.process_iter(["cmdline"]) if "4321" in (one.info["cmdline"] or [])]


def test_forms_are_read_where_a_project_has_an_environment_of_its_own(serve: Serve, tmp_path: Path) -> None:
    """What Lampyr needs for that is not among the project's packages, and not to be imported by its functions."""
    venv.create(tmp_path / "project0" / ".venv", symlinks=True)
    route = """
        async def POST(req):
            form = await req.form()
            return {"name": form.get("name")}

        def GET():
            import click
    """
    server = serve({"app/x/route.py": route}, command="dev")
    body = b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\nAda\r\n--b--\r\n'
    answer = server.request("POST", "/x", body, {"content-type": "multipart/form-data; boundary=b"})
    assert answer.json() == {"name": "Ada"}
    assert server.get("/x").status == 500
    server.log("No module named 'click'")
