"""SPEC 4 through the whole house: what a browser may see, and that a secret leaves by no door."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Serve, Server, write

KEY = "sk-canary-9f8e7d6c5b4a"
PROJECT = {
    "app/whole/route.py": """
        import base64, os
        from lampyr import Response

        def GET():
            key = os.environ["API_KEY"]
            encoded = base64.b64encode(key.encode()).decode()
            return Response(f"<{key}|{encoded}|{key.encode().hex()}>", headers={"x-key": f"Bearer {key}"})

        def POST():
            raise ValueError(os.environ["API_KEY"])
    """,
    "app/split/route.py": """
        import os

        async def GET():
            yield "<"
            for letter in os.environ["API_KEY"]:
                yield letter
            yield ">"
    """,
    "app/packed/route.py": """
        import gzip, os
        from lampyr import Response

        def GET(req):
            body = gzip.compress(f"<{os.environ['API_KEY']}>".encode())
            pieces = [body[:9], body[9:]] if req.query.get("pieces") else body
            return Response(pieces, headers={"content-encoding": "gzip", "content-type": "text/html"})
    """,
    "app/mode/route.py": """
        import os
        def GET(): return {"mode": os.environ["LAMPYR_ENV"], "which": os.environ["WHICH"]}
    """,
    ".env": "WHICH=plain\nPUBLIC_TITLE=Fireflies\nTITLE=private\n",
    ".env.development": "WHICH=development",
    ".env.local": f"API_KEY={KEY}\n",
}


@pytest.fixture(scope="module", params=["dev", "start"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("secrets") / "project"
    write(root, PROJECT)
    server = Server(root, request.param)
    yield server
    server.stop()


def test_a_secret_in_a_body_or_a_header_is_masked(server: Server) -> None:
    answer = server.get("/whole")
    assert (answer.body, answer.headers["x-key"]) == (b"<***|***|***>", "Bearer ***")
    assert answer.headers["content-length"] == str(len(answer.body))


def test_a_secret_split_over_chunks_is_masked(server: Server) -> None:
    body = server.get("/split").body
    # A secret that arrives letter by letter may show its first two.
    assert body == b"<" + KEY[:2].encode() + b"***>"


@pytest.mark.parametrize("path", ["/packed", "/packed?pieces=1"])
def test_a_secret_in_a_body_that_its_function_has_compressed_is_masked(server: Server, path: str) -> None:
    answer = server.get(path)
    assert (answer.headers["content-encoding"], gzip.decompress(answer.body)) == ("gzip", b"<***>")


def test_a_secret_in_a_traceback_is_masked(server: Server) -> None:
    answer = server.request("POST", "/whole")
    assert answer.status == 500
    for text in (answer.body, "\n".join(server.lines).encode()):
        assert KEY.encode() not in text and base64.b64encode(KEY.encode()) not in text


def test_a_secret_in_the_traceback_of_an_import_is_masked(serve: Serve) -> None:
    raises = "import os\nraise ValueError(os.environ['API_KEY'])\ndef GET(): ..."
    server = serve({"app/x/route.py": raises, ".env.local": f"API_KEY={KEY}\n"}, command="dev")
    told = server.get("/x").json()["error"]["traceback"]
    assert told.endswith("ValueError: ***\n") and KEY not in told
    server.log(r"ValueError: \*\*\*")
    assert not [line for line in server.lines if KEY in line]


def test_a_browser_sees_public_names_and_no_others(server: Server) -> None:
    answer = server.get("/_lampyr/env.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    shown = json.loads(answer.body.decode().removeprefix("window.env = ").removesuffix(";\n"))
    assert shown == {"PUBLIC_TITLE": "Fireflies"}


def test_the_mode_is_that_of_the_command(serve: Serve) -> None:
    assert serve(PROJECT, command="dev").get("/mode").json() == {"mode": "development", "which": "development"}
    assert serve(PROJECT, command="start").get("/mode").json() == {"mode": "production", "which": "plain"}
    assert serve(PROJECT, command="start", env={"LAMPYR_ENV": "test"}).get("/mode").json()["mode"] == "test"


@pytest.mark.parametrize("command", ["build", "start"])
def test_a_public_value_that_holds_a_secret_is_refused(tmp_path: Path, command: str) -> None:
    write(tmp_path, {**PROJECT, ".env": f"WHICH=plain\nPUBLIC_URL=https://x/?{KEY}\n"})
    port = ["--port", "0"] if command == "start" else []
    done = subprocess.run(
        [sys.executable, "-m", "lampyr", command, str(tmp_path), *port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "lampyr: error: .env:2: " in done.stderr and "PUBLIC_URL" in done.stderr
    assert KEY not in done.stderr + done.stdout


def test_a_function_has_the_secrets_it_names_and_no_others(serve: Serve) -> None:
    show = "import os\ndef GET(): return sorted(name for name in os.environ if name.startswith('THE_'))\n"
    server = serve(
        {
            "app/all/route.py": show,
            "app/one/route.py": f'secrets = ["THE_FIRST"]\n{show}',
            "app/none/route.py": f"secrets = []\n{show}",
            ".env": "THE_PLAIN=plain\nTHE_URL=x:$THE_SECOND_TOKEN\n",
            ".env.local": "THE_FIRST=first-secret\n",
        },
        env={"THE_SECOND_TOKEN": "second-secret"},
    )
    everything = ["THE_FIRST", "THE_PLAIN", "THE_SECOND_TOKEN", "THE_URL"]
    assert server.get("/all").json() == everything
    assert server.get("/one").json() == ["THE_FIRST", "THE_PLAIN"]
    assert server.get("/none").json() == ["THE_PLAIN"]
