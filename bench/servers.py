"""The two servers under measurement, each pinned to one core, and what their process trees cost."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

HERE = Path(__file__).parent
ALL_CORES = os.sched_getaffinity(0)
SERVER_CORE, CLIENT_CORE = min(ALL_CORES), max(ALL_CORES)


class Server:
    """A running server: where it listens, and its process tree."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[str]) -> None:
        self.name, self.port, self.process = name, port, process

    def tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        """Seconds that every process of the tree has run, and those of the children that it has reaped.

        By the scheduler's clock: that of times(2) has steps of 10 ms, which is 2 us a chunk of a round of 100 streams.
        """
        total = 0.0
        for process in self.tree():
            try:
                tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
                total += sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
                total += sum(process.cpu_times()[2:4])
            except (OSError, psutil.NoSuchProcess):
                pass
        return total


def _pin(cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)


@contextmanager
def lampyr(project: Path | None = None, cores: set[int] | None = None, package: Path | None = None) -> Iterator[Server]:
    """`lampyr start` on a copy of the bench project; on one core unless others are named.

    `package` is where another Lampyr than the installed one is.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        shutil.copytree(project or HERE / "project", root)
        process = subprocess.Popen(
            [sys.executable, "-m", "lampyr", "start", str(root), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package)} if package else None,
            preexec_fn=lambda: _pin(cores or {SERVER_CORE}),
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        if found is None:
            raise RuntimeError(f"lampyr did not start: {line!r}; run it by hand on {project or HERE / 'project'}")
        try:
            server = Server("lampyr", int(found[1]), process)
            _settle(server)
            yield server
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def uvicorn() -> Iterator[Server]:
    """uvicorn with Starlette, access log off."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "baseline:app", "--port", str(port), "--no-access-log"]
    process = subprocess.Popen(
        [*command, "--loop", "uvloop", "--http", "httptools", "--log-level", "error"],
        cwd=HERE,
        text=True,
        preexec_fn=lambda: _pin({SERVER_CORE}),
    )
    try:
        _await_port(port)
        yield Server("uvicorn", port, process)
    finally:
        process.terminate()
        process.wait(30)


def wrk(server: Server, path: str, connections: int, seconds: int, *options: str) -> str:
    """What wrk says of that load, from the other core."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *options, f"http://127.0.0.1:{server.port}{path}"]
    pinned = ["taskset", "-c", str(CLIENT_CORE), *command]
    return subprocess.run(pinned, capture_output=True, text=True, check=True).stdout


def figure(pattern: str, out: str) -> str:
    """What `pattern` finds of it."""
    found = re.search(pattern, out, re.M)
    if found is None:
        raise RuntimeError(f"wrk has not said {pattern!r}:\n{out}")
    return found[1]


def _settle(server: Server) -> None:
    """Wait until the functions are imported that nobody has called yet: that takes the same core."""
    before, quiet = server.cpu_s(), 0
    while quiet < 3:
        time.sleep(0.5)
        now = server.cpu_s()
        quiet = quiet + 1 if now - before < 0.05 else 0
        before = now


def _await_port(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")
