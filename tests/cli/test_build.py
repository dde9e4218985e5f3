"""`lampyr build` imports what it checks: what cannot be imported is an error, and what can is weighed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import textwrap
import time
import venv
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from bombs import MEMORY_BOMB
from serving import ended

from lampyr import config
from lampyr.build import check
from lampyr.build import report as report_of
from lampyr.build.progress import Progress
from lampyr.node import hierarchy
from lampyr.node.limits import AtOnce
from lampyr.runtime import load

LAMPYR = str(Path(sys.executable).parent / "lampyr")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))
    return root


def build(root: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [LAMPYR, "build", str(root), *arguments]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False)


def report(root: Path, **env: str) -> dict[str, Any]:
    done = build(root, "--json", **env)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1), done.stderr
    return found


def test_what_was_not_imported_is_said(tmp_path: Path) -> None:
    write(tmp_path, {"app/a/route.py": "def GET(:\n", "app/b/route.py": "def GET(): ...\n", "public/b": "taken"})
    lines = build(tmp_path).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["/a", "standard", "was", "not", "imported"],
        ["/b", "standard", "was", "not", "imported", "GET"],
    ]
    assert lines == [line.rstrip() for line in lines]


def test_what_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"app/a/route.py": "\nimport requestz\ndef GET(): ...\n", "app/b/route.py": "def GET(): ...\n"})
    found = report(tmp_path)
    assert not found["ok"]
    (error,) = found["errors"]
    assert (error["file"], error["line"]) == ("app/a/route.py", 2)
    assert "No module named 'requestz'" in error["message"] and "dependencies" in error["hint"]
    broken, whole = found["functions"]
    assert (broken["files"], broken["bytes"], broken["import_ms"]) == (None, None, None)
    assert (whole["files"], whole["bytes"]) == (1, 15)


@pytest.mark.parametrize(
    ("files", "file", "line", "says"),
    [
        ({"lampyr.toml": "[server]\nprot = 1\n"}, "lampyr.toml", 2, '[server] unknown key "prot"; allowed: host, port'),
        ({"lampyr.toml": "[server\n"}, "lampyr.toml", 1, "not valid TOML"),
        ({"pyproject.toml": "[tool.lampyr.functions]\nmemory = 1\n"}, "pyproject.toml", 2, "memory = 1 is not allowed"),
        ({".env": "A=1\nB\n"}, ".env", 2, "this line"),
        ({"app": "a file"}, "", None, "is not a project: looked for"),
    ],
)
def test_what_keeps_a_project_from_being_looked_at_has_the_same_shape(
    tmp_path: Path, files: dict[str, str], file: str, line: int | None, says: str
) -> None:
    """A script finds file and line where it finds those of route files, and `error` as other commands have it."""
    write(tmp_path, {"app/a/route.py": "def GET(): ...\n", **files} if "app" not in files else files)
    done = build(tmp_path, "--json")
    found = json.loads(done.stdout)
    (error,) = found["errors"]
    assert (done.returncode, found["ok"], found["functions"], found["warnings"]) == (1, False, [], [])
    assert (error["file"], error["line"]) == (file, line) and says in error["message"]
    place = f"{file}:{line}: " if file else ""
    assert found["error"]["message"] == place + error["message"] and found["error"]["hint"] == error["hint"]
    assert f"lampyr: error: {place}{error['message']}" in done.stderr


def test_an_import_that_ends_its_process_says_how(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "app/a/route.py": "import os\nos._exit(4)\ndef GET(): ...\n",
            "app/b/route.py": "import ctypes\nctypes.string_at(0)\ndef GET(): ...\n",
            "app/c/route.py": "def GET(): ...\n",
        },
    )
    done = build(tmp_path, "--json")
    found = json.loads(done.stdout)
    left, crashed = found["errors"]
    assert left["file"] == "app/a/route.py" and "exited with status 4" in left["message"]
    assert crashed["file"] == "app/b/route.py" and "killed by SIGSEGV" in crashed["message"]
    assert 'app/b/route.py", line 2' in done.stderr  # faulthandler's stack
    assert found["functions"][2]["files"] == 1


def test_a_function_is_weighed_with_what_it_loads(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "app/a/route.py": "import helper\ndef GET(): ...\n",
            "helper.py": "import json, heavy\n",
            "packages/heavy/__init__.py": "import light\nfrom . import more\n",
            "packages/heavy/more.py": f"data = '{'x' * 5000}'\n",
            "packages/heavy/unused.py": "",
            "packages/light.py": "one = 1\n",
        },
    )
    site = tmp_path / "site-packages"
    (tmp_path / "packages").rename(site)
    (function,) = report(tmp_path, PYTHONPATH=os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))[
        "functions"
    ]
    loaded = ["app/a/route.py", "helper.py", "site-packages/heavy/__init__.py", "site-packages/heavy/more.py"]
    sizes = [(tmp_path / name).stat().st_size for name in [*loaded, "site-packages/light.py"]]
    assert (function["files"], function["bytes"]) == (5, sum(sizes))
    assert function["packages"] == [
        {"name": "heavy", "bytes": sizes[2] + sizes[3], "imported_by": "helper.py"},
        {"name": "light", "bytes": sizes[4], "imported_by": "heavy"},
    ]
    assert function["import_ms"] > 0


def test_the_table_names_the_largest_packages(tmp_path: Path) -> None:
    write(tmp_path, {"app/api/a/route.py": "import pydantic\ndef GET(): ...\n"})
    done = build(tmp_path)
    first, *rows = done.stdout.splitlines()
    assert done.returncode == 0 and first.startswith("/api/a ") and "MiB" in first and " ms" in first
    names = [row.split()[0] for row in rows]
    assert {"pydantic", "pydantic_core"} <= {*names}
    assert any(row.endswith("imported by app/api/a/route.py") for row in rows)


def test_a_client_of_the_projects_own_model_can_be_made_at_import(tmp_path: Path) -> None:
    route = "from openai import AsyncOpenAI\nclient = AsyncOpenAI()\ndef GET(): ...\n"
    write(tmp_path, {"app/a/route.py": route, "lampyr.toml": "[providers.local]\n"})
    found = report(tmp_path, OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert found["ok"], found["errors"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_what_functions_may_not_read_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"app/a/route.py": "def GET(): ...\n"})
    (tmp_path / "app/a/route.py").chmod(0o600)
    (error,) = report(tmp_path)["errors"]
    assert error["file"] == "app/a/route.py" and "must be able to read" in error["message"]


SLOW = "import time\ntime.sleep(1.3)\ndef GET(): ...\n"


def test_progress_is_told_once_it_takes_a_second(tmp_path: Path) -> None:
    write(tmp_path, {"app/a/route.py": "def GET(): ...\n"})
    began_s = time.monotonic()
    quick = build(tmp_path)
    assert quick.stderr == "" or time.monotonic() - began_s > 1  # a busy machine
    write(tmp_path, {"app/b/route.py": SLOW})
    done = build(tmp_path)
    assert "lampyr: importing /b (2 of 2)\n" in done.stderr and "importing" not in done.stdout


def test_in_a_terminal_progress_leaves_no_line_behind(tmp_path: Path) -> None:
    write(tmp_path, {"app/b/route.py": SLOW})
    ours, theirs = pty.openpty()
    try:
        env = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
        subprocess.run([LAMPYR, "build", str(tmp_path)], env=env, stdout=subprocess.PIPE, stderr=theirs, check=True)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (
        shown.startswith("\r\x1b[Klampyr: importing /b (1 of 1)") and shown.endswith("\r\x1b[K") and "\n" not in shown
    )


LEFT = """\
import asyncio, random, socket, subprocess, threading, uuid
from concurrent.futures import ThreadPoolExecutor
import numpy
import helper
thread = threading.Thread(target=helper.wait, daemon=True)
thread.start()
pool = ThreadPoolExecutor(2)
pool.submit(int)
loop = asyncio.new_event_loop()
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
file = open(__file__)
process = subprocess.Popen(["sleep", "60"])
chosen = random.Random(1)
also = numpy.random.default_rng(2)
drawn = random.Random(), numpy.random.default_rng()
def GET(): ...
"""
HELPER = """\
import threading, uuid
TOKEN = uuid.uuid4()
def wait(): threading.Event().wait()
log = open("/dev/null", "a")
closed = open(__file__)
closed.close()
"""


def test_what_an_import_leaves_behind_is_a_warning_with_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, {"app/a/route.py": LEFT, "helper.py": HELPER, "app/b/route.py": "import helper\ndef GET(): ...\n"})
    found = report(tmp_path)
    assert found["ok"]
    said = {(one["file"], one["line"]): one["message"] for one in found["warnings"]}
    assert all(one["hint"] for one in found["warnings"])
    assert len(said) == len(found["warnings"]), "one line each, and each only once"
    expected = {
        ("app/a/route.py", 6): "the import starts a thread (Thread-1 (wait), which runs helper.py:3)",
        ("app/a/route.py", 8): "the import starts a thread (ThreadPoolExecutor-0_0",
        ("app/a/route.py", 9): "the import makes an event loop",
        ("app/a/route.py", 10): "the import opens a socket; all instances share it",
        ("app/a/route.py", 11): "the import opens a connection to 127.0.0.1:",
        ("app/a/route.py", 12): "the import opens the file ",
        ("app/a/route.py", 13): "the import starts a process (sleep)",
        ("app/a/route.py", 14): "the import seeds a generator (Random)",
        ("app/a/route.py", 15): "the import seeds a generator (PCG64)",
        ("helper.py", 2): "TOKEN is drawn at import (uuid.uuid4)",
    }
    assert {place: said.get(place, "")[: len(text)] for place, text in expected.items()} == expected
    assert set(said) == set(expected)


def test_a_file_that_is_never_served_is_in_nobodys_way(tmp_path: Path) -> None:
    route = "app/.well-known/security.txt/route.py"
    write(tmp_path, {route: "def GET(): ...\n", "public/.well-known/security.txt": "x\n"})
    assert report(tmp_path)["errors"] == []


def test_a_project_with_a_venv_imports_nothing_that_only_lampyr_has(tmp_path: Path) -> None:
    write(
        tmp_path, {"app/a/route.py": "import click\ndef GET(): ...\n", "app/b/route.py": "import own\ndef GET(): ...\n"}
    )
    assert build(write(tmp_path / "without", {"app/a/route.py": "import click\ndef GET(): ...\n"})).returncode == 0
    venv.create(tmp_path / ".venv", symlinks=True)
    (site,) = (tmp_path / ".venv/lib").glob("python*/site-packages")
    write(site, {"own.py": ""})
    found = report(tmp_path)
    (error,) = found["errors"]
    assert error["file"] == "app/a/route.py" and "No module named 'click'" in error["message"]
    assert str(site) in error["hint"]
    assert found["functions"][1]["packages"] == [{"name": "own", "bytes": 0, "imported_by": "app/b/route.py"}]


needs_groups = pytest.mark.skipif(not {"memory", "pids"} <= hierarchy.find()[0].keys(), reason="no control groups here")


def groups() -> set[Path]:
    return {group for folder in hierarchy.find()[0].values() for group in folder.glob("lampyr-*")}


@needs_groups
@pytest.mark.alone
def test_bombs_at_import_end_alone_and_are_named(tmp_path: Path) -> None:
    """In children, for which the bound on one process's memory is none; and as many of them as there may be."""
    fork_bomb = "import os\nwhile True: os.fork()\ndef GET(): ...\n"
    files = {"memory": MEMORY_BOMB, "forks": fork_bomb, "fine": "def GET(): ...\n"}
    write(tmp_path, {f"app/{name}/route.py": text for name, text in files.items()})
    before = groups()
    done = build(tmp_path, "--json")
    found = json.loads(done.stdout)
    forks, memory = found["errors"]
    assert memory["file"] == "app/memory/route.py" and "more memory than the 1056 MiB" in memory["message"], found
    assert forks["file"] == "app/forks/route.py" and "BlockingIOError" in forks["message"]
    assert re.search(r"more than the \d+ processes and threads", forks["hint"]), forks
    assert [one["files"] for one in found["functions"]] == [1, None, None]  # fine, forks, memory
    assert "BrokenPipeError" not in done.stderr
    assert not {group for group in groups() - before if not Path(f"/proc/{group.name.partition('-')[2]}").exists()}


def test_an_import_of_one_process_that_needs_too_much_memory_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, {"app/x/route.py": "keep = [b'x' * (1 << 20) for _ in range(5000)]\ndef GET(): ...\n"})
    [error] = report(tmp_path)["errors"]
    assert error["line"] == 1 and error["message"] == "MemoryError"
    assert error["hint"] == load.TOO_MUCH_MEMORY


def test_an_import_without_an_end_is_ended_and_the_next_one_has_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spin = "import os\nos.fork()\nwhile True: pass\ndef GET(): ...\n"
    root = write(tmp_path, {"app/a/route.py": spin, "app/b/route.py": "def GET(): ...\n"}).resolve()
    monkeypatch.setattr(check, "IMPORT_TIMEOUT_S", 3.0)
    before = set(psutil.Process().children(recursive=True))  # servers of other tests
    with closing(AtOnce(print)) as limits:
        settings = config.load(root)
        found = report_of.make(root, tmp_path / "state", settings, None, {}, Progress(), limits.fence)
        assert [one.message for one in found.project.errors] == ["the import did not finish within 3 s"]
        assert found.loads.keys() == {"/b"}
    assert 'app/a/route.py", line 3 in <module>' in capfd.readouterr().err  # faulthandler's stack
    assert all(map(ended, set(psutil.Process().children(recursive=True)) - before))
