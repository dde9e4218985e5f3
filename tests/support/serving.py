"""Real servers for the system tests: `lampyr dev` or `lampyr start` on a project written for the test."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lampyr.control import door

READY_WITHIN_S = 60.0
# How long a test waits for what should come soon: for a machine with one core, which somebody else has.
WITHIN_S = 40.0
# What a handler answers to be recognised from outside: in its own PID namespace its number means nothing here.
WHO = "f\"{os.stat('/proc/self/ns/pid').st_ino} {os.getpid()}\""


@dataclass
class Answer:
    """A response that has been read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str | None:
        return self.headers.get("x-lampyr-error")


class Server:
    """A running `lampyr`, its project and everything it wrote."""

    def __init__(
        self,
        root: Path,
        command: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> None:
        """`through`: a program that executes the rest of its command line."""
        self.root = root
        self.command = command
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*through, sys.executable, "-m", "lampyr", command, str(root), "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://[^\s\"]+:(\d+)", line)
        if found is None:
            self.process.wait(READY_WITHIN_S)
            self.stop()
            raise AssertionError(f"not ready: {line!r}\n" + "\n".join(self.lines))
        self.ready_line = line.rstrip("\n")
        self.port = int(found[1])

    @property
    def live(self) -> Path:
        """Where the code that serves lies: `start` serves a copy of the project."""
        index = self.root / ".lampyr" / "deployments" / "index.json"
        if self.command == "dev":
            return self.root
        return index.parent / str(json.loads(index.read_text())["history"][-1])

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 40)

    def write(self, file: str, text: str) -> None:
        """Save a file of the project as an editor does: a new file moved into place."""
        write(self.root, {file: text})

    def log(self, pattern: str, within_s: float = WITHIN_S) -> re.Match[str]:
        """The first match of `pattern` in what the server wrote to stderr; waits for it."""
        found: re.Match[str] = until(
            lambda: re.search(pattern, "\n".join(self.lines), re.M), f"log line {pattern!r}", within_s, self.lines[-20:]
        )
        return found

    def rows(self) -> list[dict[str, Any]]:
        """What `lampyr ps` knows, a row a function."""
        found: list[dict[str, Any]] = door.ask(self.root / ".lampyr", "ps")["functions"]
        return found

    def processes(self) -> list[psutil.Process]:
        """Every process below the supervisor."""
        try:
            return list(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def who_is(self, who: str) -> psutil.Process | None:
        """The process that calls itself `who` (see WHO); None when it has ended."""
        return next((one for one in self.processes() if who_of(one) == who), None)

    def find(self, module: str) -> psutil.Process:
        """The process that was started for one of our modules, e.g. `lampyr.gateway`."""
        children = psutil.Process(self.process.pid).children
        found: psutil.Process = until(lambda: next(started_for(module, children()), None), f"a process of {module}")
        return found

    def stop(self, signum: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        code = self.process.wait(60)
        self._reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


def started_for(module: str, processes: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    """Those of `processes` that run one of our modules."""
    for one in processes:
        try:
            if module in one.cmdline():
                yield one
        except psutil.Error:  # it has just ended
            continue


def command_lines(processes: Iterable[psutil.Process]) -> str:
    """Those of `processes` that have not ended meanwhile."""
    found = []
    for one in processes:
        try:
            found += one.cmdline()
        except psutil.Error:
            continue
    return " ".join(found)


def ended(process: psutil.Process) -> bool:
    """Whether it has: whoever is to reap it may come to that later."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def who_of(process: psutil.Process) -> str:
    try:
        namespace = os.stat(f"/proc/{process.pid}/ns/pid").st_ino
        numbers = re.search(r"^NSpid:.*\t(\d+)$", Path(f"/proc/{process.pid}/status").read_text(), re.M)
    except OSError:
        return ""
    return f"{namespace} {numbers[1]}" if numbers else ""


def until(check: Callable[[], Any], what: str, within_s: float = WITHIN_S, context: object = "") -> Any:
    """Wait until `check` gives something true; the bound is for broken runs only."""
    deadline = time.monotonic() + within_s
    while not (found := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s} s for {what}\n{context}")
        time.sleep(0.01)
    return found


def settled(look: Callable[[], Any]) -> Any:
    """What `look` gives, once it gives the same a hundred times in a row: for a second or longer."""
    seen = [look()]

    def is_settled() -> bool:
        seen.append(look())
        return len(seen) > 100 and all(one == seen[-1] for one in seen[-100:])

    until(is_settled, "rest", context=seen[-5:])
    return seen[-1]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(textwrap.dedent(text))
        new.rename(path)


Serve = Callable[..., Server]


@contextmanager
def running(folder: Path, files: dict[str, str], command: str = "start") -> Iterator[Server]:
    """A server on a project of these files, for the tests of a whole module."""
    root = folder / "project"
    write(root, files)
    server = Server(root, command)
    yield server
    server.stop()
