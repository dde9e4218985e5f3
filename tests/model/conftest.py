"""Model processes of this room's tests: started as the supervisor does it, stopped with the test."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import openai
import pytest

from lampyr import model
from lampyr.model.catalog import Model


class Running(NamedTuple):
    """A model process, the socket it serves, a client for it, and the file its stderr goes to."""

    process: subprocess.Popen[bytes]
    listener: socket.socket
    client: openai.OpenAI
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def send(self, body: bytes, *headers: str, line: str = "POST /v1/chat/completions HTTP/1.1") -> socket.socket:
        """A connection on which a request was sent byte by byte, without a client's help."""
        fields = [line, "Host: test", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
        connection = socket.create_connection(self.address)
        connection.sendall("\r\n".join(fields).encode() + b"\r\n\r\n" + body)
        return connection


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a model process; `listener` may be one that another process served before."""
    running: list[Running] = []

    def start(*, echo: bool = False, idle_seconds: float = 60.0, listener: socket.socket | None = None) -> Running:
        listener = listener or socket.create_server(("127.0.0.1", 0))
        command = model.command(listener.fileno(), echo=echo, idle_seconds=idle_seconds)
        log = tmp_path / f"log-{len(running)}"
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=stderr, stderr=stderr)
        url = "http://{}:{}/v1".format(*listener.getsockname())
        running.append(Running(process, listener, openai.OpenAI(base_url=url, api_key="none", max_retries=0), log))
        return running[-1]

    yield start
    for one in running:
        one.client.close()
        one.process.kill()
        one.process.wait()
        one.listener.close()


@pytest.fixture
def echo(start: Callable[..., Running]) -> Running:
    return start(echo=True)


@pytest.fixture
def local(start: Callable[..., Running]) -> Running:
    status = model.status()
    if status.backend != "local":
        pytest.skip(f"the local model is not here: {status.reason} (hint: {status.hint})")
    return start()


@pytest.fixture
def content() -> bytes:
    """What is in the file of the model `tiny`."""
    return b"GGUF and the rest"


@pytest.fixture
def tiny(content: bytes) -> Model:
    """A model nobody has to download."""
    return Model(
        name="tiny",
        id="tiny-1",
        title="Tiny",
        license="MIT",
        package="lampyr-tiny",
        version="1.0",
        file="tiny.gguf",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
