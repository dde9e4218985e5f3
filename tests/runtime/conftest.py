"""A gateway for tests: starts a real instance in a process of its own and talks to it in frames."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lampyr.runtime import instance, wire
from lampyr.runtime.program import Program

PATIENCE_S = 40.0


@dataclass
class Answer:
    """What an instance sent for one request."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    failure: tuple[str, str] | None = None
    streamed: bool = False
    kinds: list[int] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Gateway:
    """The other end of an instance's socket. `send` begins a request, `answer` waits until it is complete."""

    def __init__(self, sock: socket.socket, pid: int, log: Path) -> None:
        self.sock = sock
        self.pid = pid
        self._log = log
        self._data = b""
        self._streams = 0
        self._status: int | None = None
        self.frames: dict[int, list[tuple[int, bytes]]] = {}

    def send(
        self,
        method: str = "GET",
        target: str = "/",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes = b"",
        *,
        params: Any = None,
        whole: bool = True,
        deadline: str = "",
        region: str = "",
        raw: list[bytes] | None = None,
    ) -> int:
        self._streams += 1
        path, _, query = target.partition("?")
        head = ["id-" + str(self._streams), method, "http://test.local:3000", path, query]
        head += [json.dumps(params) if params else "", "10.1.2.3", deadline, region]
        pairs = headers.items() if isinstance(headers, dict) else headers or ()
        for name, value in pairs:
            head += [name.lower(), value]
        fields = [part.encode("utf-8", "surrogateescape") for part in head] + (raw or [])
        kind = wire.REQUEST_WHOLE if whole else wire.REQUEST
        self.sock.sendall(wire.head_frame(self._streams, kind, fields, body))
        self.frames[self._streams] = []
        return self._streams

    def frame(self, stream: int, kind: int, payload: bytes = b"") -> None:
        self.sock.sendall(wire.frame(stream, kind, payload))

    def read(self, patience_s: float = PATIENCE_S) -> bool:
        """Take what the instance sent; False when nothing came in time or the instance is gone."""
        if not select.select([self.sock], [], [], patience_s)[0]:
            return False
        data = self.sock.recv(1 << 20)
        self._data += data
        while len(self._data) >= wire.HEADER_BYTES:
            length, stream, kind = wire.HEADER.unpack_from(self._data)
            end = wire.HEADER_BYTES + length
            if len(self._data) < end:
                break
            self.frames.setdefault(stream, []).append((kind, self._data[wire.HEADER_BYTES : end]))
            self._data = self._data[end:]
        return bool(data)

    def wait(self, stream: int, *kinds: int) -> bytes:
        """The payload of the first frame of one of these kinds; it fails when none comes."""
        until = time.monotonic() + PATIENCE_S
        while True:
            for kind, payload in self.frames[stream]:
                if kind in kinds:
                    return payload
            assert time.monotonic() < until and self.read(), f"none of {kinds} came; {self.frames[stream]}\n{self.log}"

    def answer(self, stream: int) -> Answer:
        """Everything up to the final frame, and up to DONE where AFTER announced it; credit is given for each chunk."""
        answer = Answer()
        until = time.monotonic() + PATIENCE_S
        at = 0
        final = False
        while True:
            frames = self.frames[stream]
            for kind, payload in frames[at:]:
                at += 1
                if kind == wire.QUICK_ANSWER:
                    kind = wire.ANSWER
                answer.kinds.append(kind)
                if kind in (wire.ANSWER, wire.HEAD):
                    fields, body = wire.split_head(payload)
                    texts = [part.decode("latin-1") for part in fields]
                    answer.status = int(texts[0])
                    answer.fields = list(zip(texts[1::2], texts[2::2], strict=True))
                    answer.streamed = kind == wire.HEAD
                    if body:
                        answer.chunks.append(body)
                elif kind == wire.CHUNK:
                    answer.chunks.append(payload)
                    self.frame(stream, wire.CREDIT, len(payload).to_bytes(4, "big"))
                elif kind == wire.FAIL:
                    failure, _, text = payload.partition(b"\0")
                    answer.failure = failure.decode(), text.decode()
                final = final or kind in (wire.ANSWER, wire.END, wire.FAIL)
            if final and (wire.AFTER not in answer.kinds or wire.DONE in answer.kinds):
                return answer
            assert time.monotonic() < until and self.read(), f"the answer is not complete: {answer}\n{self.log}"

    def call(self, *arguments: Any, **keywords: Any) -> Answer:
        return self.answer(self.send(*arguments, **keywords))

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_log(self, text: str) -> str:
        until = time.monotonic() + PATIENCE_S
        while text not in self.log:
            assert time.monotonic() < until, f"{text!r} did not come into the log: {self.log}"
            time.sleep(0.005)
        return self.log

    def end(self) -> int:
        """Close the socket, which ends the instance, and reap it; its wait status."""
        self.sock.close()
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        return self._status


def _child(program: Program, fd: int, log: Path) -> None:
    try:
        out = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  until the process ends
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  until the process ends
        instance.Instance(program).serve(socket.socket(fileno=fd))
    finally:
        os._exit(70)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """`serve(GET=handler, ...)` or `serve(app=application, folder="api/[[...path]]")`: an instance that says hello."""
    started: list[Gateway] = []

    def start(
        *, app: Any = None, folder: str = "api/test", keepalive_s: float = 15.0, threads: int = 4, **methods: Any
    ) -> Gateway:
        log = tmp_path / f"log-{len(started)}"
        log.touch()
        route = "/" + "/".join(part for part in folder.split("/") if not part.startswith("("))
        program = Program(f"/project/app/{folder}/route.py", methods, app, threads, keepalive_s, route)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _child(program, theirs.detach(), log)
        theirs.close()
        gateway = Gateway(ours, pid, log)
        started.append(gateway)
        gateway.frames[0] = []
        gateway.wait(0, wire.HELLO)
        return gateway

    yield start
    for gateway in started:
        gateway.end()
