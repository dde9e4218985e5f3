"""What honest programs do works in the sandbox: children, shared memory, databases, names, certificates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, write

from lampyr.runtime import sandbox

ROUTE = """
import asyncio
import getpass
import multiprocessing
import os
import pathlib
import socket
import sqlite3
import ssl
import sys
import tempfile
from multiprocessing import shared_memory

FORKED = multiprocessing.get_context("fork")


def square(number):
    return number * number


def pool():
    with FORKED.Pool(2) as workers:
        return workers.map(square, [1, 2, 3])


def shared():
    memory = shared_memory.SharedMemory(create=True, size=1000)
    memory.close()
    memory.unlink()
    return True


def database():
    with sqlite3.connect(pathlib.Path(tempfile.gettempdir()) / "x.db") as db:
        db.execute("create table a(b)")
        return db.execute("select count(*) from a").fetchone()[0]


def by_name():
    with open("/dev/stdout", "w") as out:
        out.write("said by name\\n")
    return True


def resolve():
    return socket.getaddrinfo("localhost", 80, socket.AF_INET)[0][4][0]


def home():
    place = pathlib.Path.home() / "cache"
    place.mkdir(exist_ok=True)
    return place.exists() and bool(getpass.getuser())


def certificates():
    return len(ssl.create_default_context().get_ca_certs()) >= 0


async def child():
    process = await asyncio.create_subprocess_shell("echo hi | cat", stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode().strip()


async def GET(req):
    found = globals()[req.params["what"]]()
    return [await found if asyncio.iscoroutine(found) else found]
"""
WORKS = {
    "pool": [1, 4, 9],
    "shared": True,
    "database": 0,
    "by_name": True,
    "resolve": "127.0.0.1",
    "home": True,
    "certificates": True,
    "child": "hi",
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("honest") / "project"
    write(root, {"app/[what]/route.py": ROUTE})
    server = Server(root, "start")
    yield server
    server.stop()


@pytest.mark.parametrize("what", WORKS)
def test_what_honest_programs_do_works(honest: Server, what: str) -> None:
    answer = honest.get(f"/{what}")
    assert (answer.status, answer.body and answer.json()) == (200, [WORKS[what]]), honest.lines[-12:]


@pytest.mark.skipif(not sandbox.find().users, reason="functions have no user ids of their own here")
def test_a_project_that_only_its_owner_can_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"app/x/route.py": "def GET(): return 'x'\n"})
    (tmp_path / "app/x/route.py").chmod(0o600)
    command = [sys.executable, "-m", "lampyr", "start", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "must be able to read" in done.stderr and "`chmod -R go+rX .` in the project's folder" in done.stderr
    server = Server(tmp_path, "dev")
    assert server.get("/x").status == 500
    server.log(r"^lampyr: error: /x: it cannot be imported: /.*/app/x/route.py:1: PermissionError")
    server.stop()


def test_a_restrictive_umask_of_the_server_keeps_no_function_from_a_project_it_could_read(tmp_path: Path) -> None:
    write(tmp_path, {"app/x/route.py": "def GET(): return 'x'\n"})
    for path in (tmp_path, tmp_path / "app", tmp_path / "app/x"):
        path.chmod(0o755)
    umask = os.umask(0o077)
    try:
        server = Server(tmp_path, "start")
    finally:
        os.umask(umask)
    assert server.get("/x").body == b"x", server.lines[-12:]
    server.stop()
