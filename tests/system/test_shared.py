"""Packages that several functions import are in memory once, and none of their secrets with them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from serving import Serve, Server, until, write

SECRET = "a-secret-of-mine-4711"
ROUTE = """
    import os
    import {package}

    async def GET(req):
        return {{"at import": {package}.KEY, "now": os.environ.get("MY_KEY") is not None, "who": "{name}"}}
"""
PLAIN = "import os\nKEY = os.environ.get('PLAIN')\n"
CURIOUS = "import os\nKEY = os.environ.get('MY_KEY') is not None\n"

needs_rooms = pytest.mark.skipif(sys.platform != "linux", reason="snapshots are shared where there are namespaces")


@pytest.fixture
def serve_with(serve: Serve, tmp_path: Path) -> Callable[..., Server]:
    """A server whose functions /a and /b import the package `heavy`, and /alone does not."""

    def start(package: str, command: str = "start") -> Server:
        write(tmp_path, {"site/heavy/__init__.py": package, "site/heavy/weights.txt": "x" * 1_100_000})
        routes = {f"app/{name}/route.py": ROUTE.format(package="heavy", name=name) for name in "ab"}
        files = {
            **routes,
            "app/alone/route.py": "async def GET(req):\n    return 'alone'\n",
            "tools.py": "WORD = 1",
            ".env.local": f"MY_KEY={SECRET}\nOTHER_KEY=12345678",
            ".env": "PLAIN=plain",
        }
        return serve(
            files, command=command, env={"PYTHONPATH": f"{tmp_path}/site{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        )

    return start


def sharer(server: Server) -> psutil.Process | None:
    """The shared snapshot: the process that two function snapshots come from, other than the base."""
    base = server.find("lampyr.runtime.snapshot")
    with suppress(psutil.NoSuchProcess):  # a first fork has proved its health, and has gone
        grandchildren = [inner for child in base.children() for inner in child.children()]
        return next((one for one in grandchildren if len(one.children()) >= 2), None)
    return None


@needs_rooms
def test_functions_are_forked_from_one_process_that_has_imported_their_package(
    serve_with: Callable[..., Server],
) -> None:
    server = serve_with(PLAIN)
    for name in "ab":
        assert server.get(f"/{name}").json() == {"at import": "plain", "now": True, "who": name}
    assert server.get("/alone").body == b"alone"
    shared = until(lambda: sharer(server), "a shared snapshot")
    assert len(shared.children()) == 2
    assert SECRET.encode() not in memory(shared.pid)


# 3.7 MiB as measured. What is written into the pages that are shared decides, and every call writes into a few.
MOST_OWN_KIB = 4.5 * 1024


@needs_rooms
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look")
def test_a_snapshot_without_instances_has_little_memory_of_its_own(serve: Serve) -> None:
    route = "import openai\nasync def GET(req):\n    return openai.__version__\n"
    server = serve({f"app/{name}/route.py": route for name in "abc"})
    shared = until(lambda: sharer(server), "a shared snapshot")
    until(lambda: not any(one.children() for one in shared.children()), "the end of the first forks")
    own = [own_kib(one.pid) for one in shared.children()]
    assert len(own) == 3
    assert max(own) < MOST_OWN_KIB, own


def own_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB$", text, re.M))


def memory(pid: int) -> bytes:
    """Everything a process may write to."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for first, last in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps.read(), re.M):
            mem.seek(int(first, 16))
            found.append(mem.read(int(last, 16) - int(first, 16)))
    return b"".join(found)


@needs_rooms
def test_a_package_that_asks_for_a_secret_is_imported_by_each_function(serve_with: Callable[..., Server]) -> None:
    server = serve_with(CURIOUS)
    for name in "ab":
        assert server.get(f"/{name}").json() == {"at import": True, "now": True, "who": name}
    assert sharer(server) is None


@needs_rooms
def test_a_package_that_cannot_be_imported_fails_in_its_functions_alone(serve_with: Callable[..., Server]) -> None:
    server = serve_with("raise RuntimeError('not today')", command="dev")
    answer = server.get("/a")
    assert (answer.status, answer.error) == (500, "FUNCTION_INVOCATION_FAILED")
    server.log("not today")
    assert server.get("/alone").status == 200


@needs_rooms
def test_a_shared_snapshot_that_is_killed_comes_back(serve_with: Callable[..., Server]) -> None:
    server = serve_with(PLAIN)
    assert server.get("/a").status == 200
    assert server.get("/b").status == 200
    shared = until(lambda: sharer(server), "a shared snapshot")
    os.kill(shared.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(shared.pid), "its end")
    for name in "ab":
        until(lambda name=name: server.get(f"/{name}").status == 200, f"/{name} to be back")


@needs_rooms
def test_in_development_a_saved_file_is_seen(serve_with: Callable[..., Server]) -> None:
    server = serve_with(PLAIN, command="dev")
    server.write("app/a/route.py", "import heavy, tools\nasync def GET(req):\n    return {'word': tools.WORD}\n")
    assert server.get("/a").json() == {"word": 1}
    server.write("tools.py", "WORD = 2")
    assert server.get("/a").json() == {"word": 2}
    server.write("more.py", "WORD = 3")
    server.write("app/a/route.py", "import heavy, more\nasync def GET(req):\n    return {'word': more.WORD}\n")
    assert server.get("/a").json() == {"word": 3}
