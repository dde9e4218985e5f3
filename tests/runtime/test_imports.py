"""What importing costs, in a fresh process: every module here is part of every cold start of the base snapshot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LISTING = "import sys; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"

# A route file's `import lampyr` must not cost anything.
NOTHING_BUT_ITSELF = {"lampyr"}
# Heavy, or not of the standard library, or another room's.
FOREIGN = {
    "click", "rich", "httptools", "uvloop", "psutil", "dotenv", "python_multipart", "multipart", "pydantic", "openai",
    "anthropic", "msgspec", "starlette", "fastapi", "anyio", "ctypes", "email", "http", "sqlite3", "unittest",
    "multiprocessing",
}  # fmt: skip


def added(statement: str) -> set[str]:
    command = [sys.executable, "-c", LISTING.format(statement)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split())


def test_import_lampyr_adds_nothing() -> None:
    assert added("import lampyr") - {"__future__"} == NOTHING_BUT_ITSELF


def test_request_and_response_need_no_event_loop() -> None:
    modules = added("from lampyr import Request, Response, redirect, env")
    assert not {
        name for name in modules if name.partition(".")[0] in {"asyncio", "socket", "ssl", "inspect", "tempfile"}
    }


@pytest.mark.parametrize("module", ["lampyr.runtime.snapshot", "lampyr.runtime.asgi", "lampyr.runtime.ui"])
def test_the_runtime_is_standard_library_and_its_own_floor(module: str) -> None:
    modules = added(f"import {module}")
    assert not {name for name in modules if name.partition(".")[0] in FOREIGN}
    allowed = ("lampyr.runtime", "lampyr.core", "lampyr.errors", "lampyr.types")
    ours = {name for name in modules if name.startswith("lampyr.")}
    assert not {name for name in ours if not name.startswith(allowed)}


SNIPPET = """
from lampyr import Context, Request, Response, after, cookies, env, headers, not_found, redirect, sse

async def POST(req: Request, ctx: Context) -> Response:
    name: str | None = req.query.get("name")
    agent: str = req.headers.get("user-agent", "")
    jar: str | None = req.cookies.get("a")
    data: bytes = await req.bytes()
    left: float | None = req.deadline
    async for piece in req.stream():
        data += piece
    form = await req.form()
    key: str = env("KEY")
    maybe: str | None = env("KEY", None)
    after(print, name, agent, jar, left, key, maybe, form)
    cookies().set("a", "1", samesite="lax")
    headers().get("x")
    if not data:
        not_found()
    response = Response.json({"a": 1}, status=201, headers={"x": "y"})
    response.headers["a"] = "b"
    response.cookies.set("a", "1", max_age=5)
    return response

def GET() -> Response:
    if env("X", "") == "1":
        redirect("/x")
    return Response(sse(["a"]))

def wrong(req: Request) -> int:
    return req.url
"""


def test_users_are_type_checked(tmp_path: Path) -> None:
    route = tmp_path / "route.py"
    route.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(route)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path).stdout
    errors = [line for line in output.splitlines() if "error:" in line]
    assert len(errors) == 1 and 'got "str", expected "int"' in errors[0], output
