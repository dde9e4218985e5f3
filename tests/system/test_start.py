"""`lampyr start`: what serves first is imported once, proves its health, and hurts nobody while it is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bombs import MEMORY_BOMB
from serving import Serve, Server, until, write

from lampyr.node import hierarchy
from lampyr.runtime import sandbox

GROUPS, _ = hierarchy.find()
needs_groups = pytest.mark.skipif("memory" not in GROUPS or "pids" not in GROUPS, reason="no control groups here")
needs_rooms = pytest.mark.skipif(not sandbox.find().room, reason="snapshots are shared where there are namespaces")
FINE = "print('imported', flush=True)\ndef GET(): return 'fine'\n"


def refused(root: Path, route: str) -> str:
    """What a start says that is refused for this route file."""
    write(root, {"app/x/route.py": route, "app/fine/route.py": FINE})
    command = [sys.executable, "-m", "lampyr", "start", str(root), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert not any((root / ".lampyr/deployments").glob("*/app")), "what cannot be served stays on the disk"
    return done.stderr


def test_every_function_is_imported_once(serve: Serve) -> None:
    server = serve({f"app/{name}/route.py": FINE for name in "abc"})
    assert {server.get(f"/{name}").body for name in "abc"} == {b"fine"}
    for name in "abc":
        server.log(rf"^/{name} .*\| imported|^/{name} \| imported")
    assert sum("| imported" in line for line in server.lines) == 3, server.lines


def test_so_it_is_at_the_next_start(serve: Serve) -> None:
    first = serve({"app/a/route.py": FINE})
    assert first.stop() == 0
    again = Server(first.root, "start")
    assert again.get("/a").body == b"fine"
    again.log(r"\| imported")
    assert sum("| imported" in line for line in again.lines) == 1, again.lines
    assert again.stop() == 0


def test_a_gateway_that_dies_while_functions_are_imported_is_followed_by_another(tmp_path: Path) -> None:
    slow = "import time\nprint('begun', flush=True)\ntime.sleep(2)\n" + FINE
    write(tmp_path / "project", {"app/a/route.py": slow})
    killer = """
import subprocess, sys, psutil
command = [sys.executable, "-m", "lampyr", "start", sys.argv[1], "--port", "0"]
process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
for line in process.stderr:
    if "begun" in line:
        break
gateway = next(one for one in psutil.Process(process.pid).children() if "lampyr.gateway" in one.cmdline())
gateway.kill()
for line in process.stderr:
    if "lampyr: console" in line:
        break
process.terminate()
process.stderr.read()
sys.exit(process.wait())
"""
    done = subprocess.run(
        [sys.executable, "-c", killer, str(tmp_path / "project")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "lampyr: ready" in done.stdout, done


def test_whose_instances_do_not_get_ready_is_not_served(tmp_path: Path) -> None:
    hook = "from lampyr import after_restore\n@after_restore\ndef broken(): raise KeyError(1)\n"
    said = refused(tmp_path / "project", hook + FINE)
    assert "its health fork did not get ready" in said and "the project cannot be served: 1 error" in said


def test_an_import_that_ends_its_process_says_how(tmp_path: Path) -> None:
    said = refused(tmp_path / "project", "import os\nos._exit(4)\ndef GET(): ...\n")
    assert re.search(r"^lampyr: error: app/x/route\.py: .*: it exited with status 4$", said, re.M), said


def test_what_an_import_said_before_it_failed_is_shown(tmp_path: Path) -> None:
    said = refused(tmp_path / "project", "print('nearly there')\nraise OSError('no disk')\ndef GET(): ...\n")
    assert "/x | nearly there" in said and 'app/x/route.py", line 2' in said
    assert re.search(r"^lampyr: error: app/x/route\.py:2: .*no disk", said, re.M), said


@needs_groups
@pytest.mark.alone
def test_a_memory_bomb_at_import_ends_alone_and_is_named(tmp_path: Path) -> None:
    """In children, for which the bound on one process's memory is none."""
    said = refused(tmp_path / "project", MEMORY_BOMB)
    assert "importing it needed more memory than the 1056 MiB" in said, said


@needs_groups
@pytest.mark.alone
def test_a_fork_bomb_at_import_stays_in_its_room(tmp_path: Path) -> None:
    bomb = """
        import os
        try:
            while True:
                os.fork()
        except OSError as error:
            os.getpid() == 1 or os._exit(0)
            raise
        def GET(): ...
    """
    said = refused(tmp_path / "project", bomb)
    assert "BlockingIOError" in said and "processes and threads that it may have" in said, said


@needs_groups
@needs_rooms
def test_what_several_functions_share_is_imported_in_a_group_too(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path, {"site/heavy/__init__.py": "import os\n", "site/heavy/weights.txt": "x" * 1_100_000})
    path = f"{tmp_path}/site{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    route = "import heavy\ndef GET(): return 'fine'\n"
    server = serve({f"app/{name}/route.py": route for name in "ab"}, env={"PYTHONPATH": path})
    assert {server.get(f"/{name}").body for name in "ab"} == {b"fine"}
    base = server.find("lampyr.runtime.snapshot")
    below = until(lambda: base.children(recursive=True), "snapshots")
    for one in below:
        groups = Path(f"/proc/{one.pid}/cgroup").read_text()
        assert re.search(r":memory:.*/lampyr-\d+/\d+\.\d+/\w+$|^0::.*/lampyr-\d+/", groups, re.M), (one, groups)
