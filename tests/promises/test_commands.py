"""SPEC 5: what the commands promise to people and to scripts, with the real executable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from serving import Serve, Server, until, write

from lampyr.cli import lampyr

HELLO = {"app/api/hello/route.py": "async def GET(): return 'hello'\n"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lampyr", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def leaves(command: click.Command) -> Iterator[click.Command]:
    if not isinstance(command, click.Group):
        yield command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found)


@pytest.mark.parametrize("command", list(leaves(lampyr)), ids=lambda command: str(command.name))
def test_every_command_speaks_json(command: click.Command) -> None:
    assert "--json" in [spelling for one in command.params for spelling in one.opts]


@pytest.mark.parametrize(("template", "path"), [("hello", "/api/hello"), ("fastapi", "/api/hello/you"), ("hello", "/")])
def test_a_template_runs_as_it_is(tmp_path: Path, template: str, path: str) -> None:
    assert run("init", str(tmp_path / "new"), "--template", template).returncode == 0
    server = Server(tmp_path / "new", "start")
    try:
        answer = server.get(path)
        assert answer.status == 200 and answer.body
    finally:
        server.stop()


def test_build_reports_every_function_and_names_every_error(tmp_path: Path) -> None:
    write(tmp_path, {**HELLO, "app/x/route.py": 'runtime = "edge"\nmemory = "much"\ndef POST(req): ...\n'})
    done = run("build", str(tmp_path), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["ok"] is False and report["warnings"] == []
    rows = [(one["function"], one["file"], one["runtime"], one["methods"]) for one in report["functions"]]
    assert rows == [
        ("/api/hello", "app/api/hello/route.py", "standard", ["GET"]),
        ("/x", "app/x/route.py", "edge", ["POST"]),
    ]
    (error,) = report["errors"]
    assert set(error) == {"file", "line", "message", "hint"}
    assert (error["file"], error["line"]) == ("app/x/route.py", 2) and "memory" in error["message"]


def test_state_is_where_it_is_wanted(serve: Serve, tmp_path: Path) -> None:
    here = serve(HELLO)
    assert here.get("/api/hello").status == 200 and (here.root / ".lampyr").is_dir()
    there = serve(HELLO, "--state-dir", str(tmp_path / "state"))
    assert there.get("/api/hello").status == 200
    assert (tmp_path / "state").is_dir() and not (there.root / ".lampyr").exists()


def test_host_and_port_are_those_of_the_settings_where_the_command_line_names_none(tmp_path: Path) -> None:
    write(tmp_path, {**HELLO, "lampyr.toml": '[server]\nhost = "127.0.0.2"\nport = 0\n'})
    process = subprocess.Popen(
        [sys.executable, "-m", "lampyr", "start", str(tmp_path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        process.terminate()
    assert url.startswith("http://127.0.0.2:") and not url.endswith((":0", ":3000"))


def test_ctrl_c_drains(serve: Serve) -> None:
    server = serve(
        {
            "app/slow/route.py": """
                import asyncio, pathlib
                APP = pathlib.Path(__file__).parents[1]

                async def GET():
                    print("begun", flush=True)
                    while not (APP / "go").exists():
                        await asyncio.sleep(0.01)
                    return "done"
            """
        },
        command="dev",
    )
    with server.connect() as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.log(r"\| begun$")
        os.kill(server.process.pid, signal.SIGINT)
        until(lambda: _refuses(server), "the drain to begin")
        (server.root / "app/go").touch()
        data = b""
        while piece := sock.recv(4096):
            data += piece
    assert data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"done")
    assert server.stop() == 130


def _refuses(server: Server) -> bool:
    try:
        server.connect().close()
    except OSError:
        return True
    return False


def test_a_stock_sdk_in_a_function_is_answered_by_the_echo(serve: Serve) -> None:
    server = serve(
        {
            "app/ask/route.py": """
                from openai import OpenAI
                client = OpenAI()

                def GET(req):
                    messages = [{"role": "user", "content": req.query["q"]}]
                    return client.chat.completions.create(model="x", messages=messages).choices[0].message.content
            """,
            "lampyr.toml": '[providers.test]\nkind = "echo"\n',
        }
    )
    first, second = (server.get("/ask?q=light").body for _ in range(2))
    assert first == second and first.endswith(b"You wrote: light")
