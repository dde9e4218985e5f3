"""The contract suite's projects and its client: every route once a runtime, and a connection that hides nothing.

Route texts stand in the test files beside the rows about them. `express` makes one of a table of expressions.
"""

from __future__ import annotations

import json
import socket
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import board
from serving import WITHIN_S, Server, until

RUNTIMES = ("standard", "edge")
COMMANDS = ("dev", "start")
SILENCE_S = WITHIN_S

SETTINGS = """
    [server]
    stream_keepalive = 1

    [functions]
    rate_limit = "none"
"""


def project(routes: Mapping[str, str], files: Mapping[str, str], marks: Path) -> dict[str, str]:
    """The files of a project in which each route is there once a runtime: `x` at /standard/x and /edge/x."""
    made = {"lampyr.toml": SETTINGS, "marks.py": board.CLIENT, **files}
    made[".env"] = f"MARKS_FOLDER={marks}\nMARKS_PORT={board.port()}\nGREETING=hello\n"
    for name, text in routes.items():
        for runtime in RUNTIMES:
            made[f"app/{runtime}/{name}/route.py"] = f'runtime = "{runtime}"\n{textwrap.dedent(text)}'
    return made


def express(rows: Iterable[tuple[str, str]], *preamble: str, methods: Iterable[str] = ("GET", "POST")) -> str:
    """A route `[row]/route.py` in which the row `name` returns the expression beside it; it may await and use `req`."""
    lines = [textwrap.dedent(text) for text in preamble]
    known = dict(rows)
    for number, expression in enumerate(known.values()):
        lines.append(f"async def _row_{number}(req):\n    return {expression}\n")
    lines.append("_ROWS = {" + ", ".join(f"{name!r}: _row_{number}" for number, name in enumerate(known)) + "}\n")
    lines += [f"async def {method}(req):\n    return await _ROWS[req.params['row']](req)\n" for method in methods]
    return "\n".join(lines)


@dataclass
class Reply:
    """A response. `whole` is false where the connection ended before the body did."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = True
    chunks: list[bytes] = field(default_factory=list)

    def __getitem__(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} stands there {len(values)} times"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for own, value in self.fields if own == name]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.fields}

    @property
    def error(self) -> str | None:
        """The code of the platform's error, which must have its shape (SPEC 3)."""
        code = self["x-lampyr-error"]
        if code is not None and self.body:
            error = self.json()["error"]
            assert error["code"] == code and error["message"] and error["id"] == self["x-lampyr-id"]
        return code

    def json(self) -> Any:
        return json.loads(self.body)


class Cut(ConnectionError):
    """The connection ended within a body; `data` came before that."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(f"the connection ended within the body, behind {data[-100:]!r}")
        self.data = data


class Line:
    """One connection to the server. Reads HTTP/1.1 strictly, a chunk at a time, and never ahead of the test."""

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(SILENCE_S)
        self.sock.connect(("127.0.0.1", port))
        self._file = self.sock.makefile("rb")
        self._left: int | None = None
        self._ended = False

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Line:
        """Send a request; a body gets its Content-Length."""
        fields = {"Host": "app.example", **(headers or {})}
        if body is not None and "Transfer-Encoding" not in fields:
            fields.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + (body or b""))
        return self

    def send_chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def head(self, method: str = "GET") -> Reply:
        """Read a response's head."""
        version, status, _ = self._line().split(b" ", 2)
        assert version == b"HTTP/1.1"
        fields = []
        while line := self._line():
            name, colon, value = line.partition(b": ")
            assert colon and name == name.lower()
            fields.append((name.decode(), value.decode("latin-1")))
        reply = Reply(int(status), fields)
        self._frame(reply, method)
        return reply

    def _frame(self, reply: Reply, method: str) -> None:
        self._left = None
        self._ended = method == "HEAD" or reply.status < 200 or reply.status in (204, 304)
        if reply["transfer-encoding"] is not None:
            assert reply["transfer-encoding"] == "chunked" and reply["content-length"] is None
        elif not self._ended:
            length = reply["content-length"]
            assert length is not None, "neither a length nor chunks"
            self._left = int(length)

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise Cut(line)
        return line[:-2]

    def chunk(self) -> bytes:
        """The next chunk as the server framed it, or b"" behind the last one. Raises Cut."""
        if self._ended:
            return b""
        if self._left is not None:
            self._ended = True
            return self._exactly(self._left)
        data = self._exactly(int(self._line(), 16))
        assert self._exactly(2) == b"\r\n"
        self._ended = not data
        return data

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self._file.read1(count - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Cut(data)
            data += piece
        return data

    def rest(self, reply: Reply) -> Reply:
        """Read what is left of the body into `reply`."""
        try:
            while data := self.chunk():
                reply.chunks.append(data)
        except Cut as cut:
            reply.whole = False
            if self._left is not None:
                reply.chunks.append(cut.data)
        reply.body = b"".join(reply.chunks)
        return reply

    def reply(self, method: str = "GET") -> Reply:
        return self.rest(self.head(method))

    def ended(self) -> bool:
        """Whether the server has closed its side; waits for it."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


@dataclass
class Place:
    """One runtime on one running server; paths are those below /standard or /edge."""

    server: Server
    command: str
    runtime: str
    marks: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/{self.runtime}"

    def line(self, receive_bytes: int | None = None) -> Line:
        return Line(self.server.port, receive_bytes)

    def open(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Line:
        """A connection on which `path` has been asked for, nothing read yet."""
        return self.line().ask(method, f"/{self.runtime}{path}", headers)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return self.ask_whole(f"/{self.runtime}{path}", method, body, headers)

    def ask_whole(
        self, target: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """The response to a target that is sent as it is; what every response has is looked at here."""
        with self.line() as line:
            reply = line.ask(method, target, headers, body).reply(method)
        assert len(reply["x-lampyr-id"] or "") > 10
        assert (reply["server-timing"] or "").startswith("queue;dur=")
        assert reply.error is None or reply.status >= 400
        return reply

    def reached(self, name: str, within_s: float = WITHIN_S) -> str:
        """The text of a mark that a handler leaves; waits for it."""
        until((self.marks / name).exists, f"the mark {name}", within_s, self.server.lines[-10:])
        return (self.marks / name).read_text()

    def said(self, id: str | None, pattern: str) -> None:
        """Wait for a line that the function wrote itself; it stands under the invocation's id."""
        self.server.log(rf"{id} \| {pattern}")

    def let(self, name: str) -> None:
        """Open a gate for a handler."""
        (self.marks / name).touch()
