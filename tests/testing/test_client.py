"""`lampyr.testing.Client`: the functions of a project under pytest, without ports and without processes."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lampyr.errors import BuildError
from lampyr.testing import Client, Cut

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"

FILES = {
    "app/api/echo/route.py": """
        from lampyr import Request, Response, cookies, headers

        max_body = 100

        async def POST(request: Request):
            return {"json": await request.json()}

        async def PUT(request: Request):
            form = await request.form()
            return [[name, value if isinstance(value, str) else show(value)] for name, value in form.items()]

        def show(file):
            return [file.filename, file.content_type, file.read().decode()]

        def GET(request: Request):
            cookies().set("seen", "1")
            return {"method": request.method, "url": request.url, "query": request.query.items(),
                    "agent": headers().get("user-agent"), "cookies": request.cookies.all(), "ip": request.ip}
    """,
    "app/api/[id]/files/[...path]/route.py": "def GET(request, context): return context.params",
    "app/stream/route.py": """
        import asyncio
        from lampyr import Request
        from ..marks import mark

        runtime = "edge"

        async def GET(request: Request):
            try:
                for number in range(int(request.query.get("n", "3"))):
                    yield f"{number};"
                    await asyncio.sleep(0.005)
                if request.query.get("fail"):
                    raise OSError("broken")
            finally:
                mark("closed")

        async def POST(request: Request):
            async for piece in request.stream():
                yield piece.upper()
    """,
    "app/slow/route.py": """
        import asyncio, time
        max_duration = 1

        async def GET():
            await asyncio.sleep(30)

        def POST():
            while True:
                time.sleep(0.01)

        async def PUT():
            yield "a"
            await asyncio.sleep(30)
    """,
    "app/first/route.py": """
        import asyncio
        runtime = "edge"
        first_byte_timeout = 1

        async def GET():
            await asyncio.sleep(30)

        async def POST():
            yield "a"
            await asyncio.sleep(1.2)
            yield "b"
    """,
    "app/fails/route.py": """
        from lampyr import BadRequest, not_found, redirect
        import sys

        def GET(): raise OSError("secret detail")
        def POST(): raise BadRequest("say please")
        def PUT(): not_found()
        def PATCH(): redirect("/elsewhere")
        def DELETE(): raise MemoryError
        def OPTIONS(): sys.exit(3)
    """,
    "app/after/route.py": """
        import asyncio
        from lampyr import after, env
        from ..marks import mark

        async def late(text):
            await asyncio.sleep(0.02)
            mark(text)

        def GET():
            after(late, env("FROM_FILE"))
            return env("LAMPYR_ENV")
    """,
    "app/fast/[[...path]]/route.py": """
        from contextlib import asynccontextmanager
        from fastapi import FastAPI
        from ...marks import mark

        @asynccontextmanager
        async def lifespan(app):
            yield {"answer": 42}
            mark("shutdown")

        app = FastAPI(lifespan=lifespan)

        @app.get("/items/{name}")
        def item(name: str): return {"name": name}
    """,
    "app/hooks/route.py": """
        from lampyr import after_restore, before_snapshot
        from ..shared import log

        before_snapshot(lambda: log.append("snapshot"))
        after_restore(lambda: log.append("restore"))

        def GET(): return log
    """,
    "app/shared.py": "log = []",
    "app/marks.py": """
        import os

        def mark(text):
            with open(os.environ["MARKS"], "a") as file:
                file.write(text + "\\n")
    """,
    ".env": "FROM_FILE=from .env",
    ".env.test": "FROM_FILE=from .env.test",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")
    return root


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    file = tmp_path / "marks"
    file.touch()
    return file


@pytest.fixture
def client(tmp_path: Path, marks: Path) -> Iterator[Client]:
    with Client(write(tmp_path / "project", FILES), environ={"MARKS": str(marks)}) as client:
        yield client


def test_json_and_errors(client: Client) -> None:
    answer = client.post("/api/echo", json={"a": "é"})
    assert answer.status == 200 and answer.json() == {"json": {"a": "é"}}
    assert answer.headers["content-type"] == "application/json" and len(answer.id) == 24
    bad = client.post("/api/echo", data="{")
    assert bad.status == 400 and bad.headers["x-lampyr-error"] == "BAD_REQUEST"
    assert bad.json()["error"]["id"] == bad.id


def test_what_the_function_sees(client: Client) -> None:
    answer = client.get(
        "/api/echo?a=1", query={"b": ["2", "é"]}, headers={"user-agent": "t"}, cookies={"c": "x y"}
    )  # fmt: skip
    assert answer.json() == {
        "method": "GET", "url": "http://testserver/api/echo?a=1&b=2&b=%C3%A9",
        "query": [["a", "1"], ["b", "2"], ["b", "é"]],
        "agent": "t", "cookies": {"c": "x y"}, "ip": "127.0.0.1",
    }  # fmt: skip
    assert answer.headers.getall("set-cookie") == ["seen=1; Path=/"]


def test_params(client: Client) -> None:
    assert client.get("/api/caf%C3%A9/files/a/b%2Fc").json() == {"id": "café", "path": ["a", "b/c"]}
    assert client.get("/api/café/files/a").json() == {"id": "café", "path": ["a"]}


def test_forms_and_files(client: Client) -> None:
    assert client.put("/api/echo", data={"a": ["1", "2"]}).json() == [["a", "1"], ["a", "2"]]
    answer = Client.put(client, "/fast/nowhere", files={"f": b"x"})
    assert answer.status == 404


def test_uploads(tmp_path: Path) -> None:
    source = FILES["app/api/echo/route.py"].replace("max_body = 100", "")
    with Client(write(tmp_path / "uploads", {"app/route.py": source})) as client:
        answer = client.put("/", data={"a": "1"}, files={"f": ('q".txt', b"hi", "text/x"), "g": b"ho"})
        assert answer.json() == [
            ["a", "1"],
            ["f", ['q".txt', "text/x", "hi"]],
            ["g", ["g", "application/octet-stream", "ho"]],
        ]


ROUTED: list[tuple[str, str, int, str | None]] = [
    ("GET", "/nowhere", 404, "NOT_FOUND"),
    ("DELETE", "/api/echo", 405, "METHOD_NOT_ALLOWED"),
    ("OPTIONS", "/api/echo", 204, None),
    ("HEAD", "/api/echo", 200, None),
    ("BREW", "/api/echo", 400, "BAD_REQUEST"),
    ("GET", "/api/echo/", 308, None),
    ("GET", "/api/%zz", 400, "BAD_REQUEST"),
    ("GET", "/fails", 500, "FUNCTION_INVOCATION_FAILED"),
    ("POST", "/fails", 400, "BAD_REQUEST"),
    ("PUT", "/fails", 404, "NOT_FOUND"),
    ("PATCH", "/fails", 307, None),
    ("DELETE", "/fails", 507, "FUNCTION_OUT_OF_MEMORY"),
    ("OPTIONS", "/fails", 502, "FUNCTION_CRASHED"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), ROUTED)
def test_answers_of_the_platform(client: Client, method: str, path: str, status: int, code: str | None) -> None:
    answer = client.request(method, path)
    assert (answer.status, answer.headers.get("x-lampyr-error")) == (status, code)
    assert "secret" not in answer.text and (method != "HEAD" or answer.bytes == b"")


def test_allow_and_location(client: Client) -> None:
    assert client.options("/api/echo").headers["allow"] == "GET, HEAD, OPTIONS, POST, PUT"
    assert client.get("/api/echo/?a=1").headers["location"] == "/api/echo?a=1"
    assert client.patch("/fails").headers["location"] == "/elsewhere"


def test_a_traceback_is_for_the_test_only(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    answer = client.get("/fails")
    assert "OSError: secret detail" in answer.traceback and "OSError: secret detail" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"x" * 101, [b"x" * 60, b"x" * 60]])
def test_max_body(client: Client, data: bytes | list[bytes]) -> None:
    answer = client.post("/api/echo", data=data)
    assert answer.status == 413 and answer.headers["x-lampyr-error"] == "FUNCTION_PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    ("path", "method", "code", "limit"),
    [
        ("/slow", "GET", "FUNCTION_INVOCATION_TIMEOUT", "max_duration"),
        ("/slow", "POST", "FUNCTION_INVOCATION_TIMEOUT", "max_duration"),
        ("/first", "GET", "EDGE_FUNCTION_INVOCATION_TIMEOUT", "first_byte_timeout"),
    ],
)
def test_time_limits(client: Client, path: str, method: str, code: str, limit: str) -> None:
    began = time.monotonic()
    error = client.request(method, path).json()["error"]
    assert error["code"] == code and error["limit"] == limit and error["limit_ms"] == 1000
    assert 1 <= time.monotonic() - began < 25


def test_a_time_limit_after_the_first_byte(client: Client) -> None:
    with pytest.raises(Cut, match="max_duration") as caught:
        client.put("/slow")
    assert caught.value.answer.status == 200 and caught.value.answer._chunks == [b"a"]
    assert client.post("/first").text == "ab"


def test_streams(client: Client, marks: Path) -> None:
    assert client.get("/stream").chunks == [b"0;", b"1;", b"2;"]
    assert client.post("/stream", data=[b"one", b"two"]).chunks == [b"ONE", b"TWO"]
    with client.stream("GET", "/stream", query={"n": 1000000}) as answer:
        assert answer.status == 200
        chunks = answer.iter_chunks()
        assert [next(chunks), next(chunks)] == [b"0;", b"1;"]
        assert marks.read_text() == "closed\n"
    assert marks.read_text() == "closed\nclosed\n"


def test_a_stream_that_fails(client: Client) -> None:
    with client.stream("GET", "/stream", query={"n": 1, "fail": 1}) as answer:
        with pytest.raises(Cut):
            list(answer.iter_chunks())
        assert "OSError: broken" in answer.traceback


def test_after_and_environment(client: Client, marks: Path) -> None:
    assert client.get("/after").text == "test" and marks.read_text() == "from .env.test\n"


def test_asgi(tmp_path: Path, marks: Path) -> None:
    with Client(write(tmp_path / "asgi", FILES), environ={"MARKS": str(marks)}) as client:
        assert client.get("/fast/items/a%20b").json() == {"name": "a b"}
        assert client.get("/fast/docs").status == 200
        assert marks.read_text() == ""
    assert marks.read_text() == "shutdown\n"


def test_hooks_run_once(client: Client) -> None:
    for _ in range(2):
        assert client.get("/hooks").json() == ["snapshot", "restore"]


def test_everything_is_as_before(tmp_path: Path, marks: Path) -> None:
    before = dict(os.environ), list(sys.path), list(sys.path_hooks)
    threads = threading.active_count()
    client = Client(write(tmp_path / "one", FILES), environ={"MARKS": str(marks)})
    client.get("/hooks")
    client.close()
    client.close()
    assert (dict(os.environ), list(sys.path), list(sys.path_hooks)) == before
    assert not [name for name in sys.modules if name == "app" or name.startswith("app.")]
    assert threading.active_count() <= threads + 1  # a worker of the pool may still be on its way out


def test_two_projects_one_after_the_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        route = f"from ..shared import NAME\ndef GET(): return NAME + {name!r}"
        files = {"app/x/route.py": route, "app/shared.py": f"NAME = {name!r}"}
        with Client(write(tmp_path / name, files)) as client:
            assert client.get("/x").text == name + name


def test_what_a_test_patches_is_what_the_function_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "app/x/route.py": "from .. import lib\ndef GET(): return lib.ask()",
        "app/lib.py": "def ask(): return 'real'",
    }
    write(tmp_path, files)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        import app.lib  # type: ignore[import-not-found]  # made above

        patch.setattr(app.lib, "ask", lambda: "patched")
        with Client(tmp_path) as client:
            assert client.get("/x").text == "patched"
        assert sys.modules["app.lib"] is app.lib
    for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
        del sys.modules[name]


def test_a_project_that_cannot_be_deployed(tmp_path: Path) -> None:
    write(tmp_path, {"app/x/route.py": "runtime = 'quick'\ndef GET(): return ''"})
    with pytest.raises(BuildError, match=r"app/x/route\.py:1"):
        Client(tmp_path)


def test_an_import_that_fails_is_the_tests_own_error(tmp_path: Path) -> None:
    write(tmp_path, {"app/x/route.py": "raise OSError('at import')\ndef GET(): return ''"})
    with Client(tmp_path) as client, pytest.raises(OSError, match="at import"):
        client.get("/x")


def test_unknown_options(client: Client) -> None:
    with pytest.raises(TypeError, match="jsn"):
        client.post("/api/echo", jsn={})
    with pytest.raises(TypeError, match="one body"):
        client.post("/api/echo", json={}, data="x")


def test_the_page_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of docs/testing.md run as they are printed."""
    examples = re.findall(r"^```python\n# (\S+)\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    sources = dict(examples)
    tests = [name for name in sources if name.startswith("tests/")]
    assert tests
    monkeypatch.chdir(write(tmp_path / "my-app", {name: sources[name] for name in sources if name not in tests}))
    for name in tests:
        scope: dict[str, Callable[..., None]] = {}
        exec(compile(sources[name], name, "exec"), scope)
        for test in [value for key, value in scope.items() if key.startswith("test_")]:
            test()
