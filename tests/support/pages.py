"""The examples of a page of documentation: files of a project, requests and their answers, command lines.

The convention, visible on the page. A fenced block whose first line is a comment with a path (`# app/x/route.py`,
`<!-- public/index.html -->`) is that file. A block in `http` is a request and, from the line `HTTP/1.1 STATUS` on, its
answer: the headers that are named, and the whole body. `console` is `$ lampyr ...` and what it prints. `...` in an
answer stands for anything, and `[cut]` at the end of a body for a response that breaks off. `http server` is for what
only a server does, so the client for tests is not asked. All blocks of a page are one project, until the line
`<!-- new project -->`.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lampyr.testing import Client, Cut

# Whose code is not ours to run: the other side of a comparison.
FOREIGN = frozenset({"ts", "tsx", "js", "text"})
NEW_PROJECT = "<!-- new project -->"

_PIECE = re.compile(rf"^```(\w+)(?: (\w+))?\n(.*?)^```$|^({re.escape(NEW_PROJECT)})$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"(?:#|<!--) ((?:[^\s`]+/)?[^\s`/]*\.[^\s`/]+)(?: -->)?")
_NAMED = re.compile(r"`(app/[^`]+\.py)`")
_STATUS = re.compile(r"HTTP/1\.1 (\d{3})")
_CUT = "[cut]"


class Message(NamedTuple):
    """A response, or what is expected of one: header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: str
    cut: bool


@dataclass
class Exchange:
    """One request of a page, and the answer that stands below it."""

    line: int
    server_only: bool
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    expected: Message

    def mistakes(self, got: Message) -> list[str]:
        """How `got` differs from what the page says."""
        found = []
        if (got.status, got.cut) != (self.expected.status, self.expected.cut):
            found.append(f"status {got.status}{' cut' if got.cut else ''}")
        for name, value in self.expected.headers:
            values = [own for other, own in got.headers if other == name]
            if not any(matches(value, own) for own in values):
                found.append(f"{name}: {values}")
        if not matches(self.expected.body, got.body.rstrip("\n")):
            found.append(f"body {got.body!r}")
        return [f"line {self.line}: {self.method} {self.target}: {one}" for one in found]


@dataclass
class Example:
    """A project of a page, and what is done with it."""

    line: int
    files: dict[str, str] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    commands: list[tuple[int, str, str]] = field(default_factory=list)
    adrift: list[str] = field(default_factory=list)

    @property
    def tests(self) -> list[str]:
        """Its files that pytest runs."""
        return [name for name in self.files if name.startswith("tests/")]

    def write(self, root: Path) -> Path:
        for name, text in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root


def examples(text: str) -> list[Example]:
    """The projects of a page, in order. What nobody would run is `adrift`."""
    found = [Example(1)]
    pieces = list(_PIECE.finditer(text))
    assert 2 * sum(piece[4] is None for piece in pieces) == len(re.findall("^ *```", text, re.MULTILINE))
    for piece in pieces:
        line = text.count("\n", 0, piece.start()) + 1
        if piece[4]:
            found.append(Example(line))
        else:
            _add(found[-1], line, piece, text[: piece.start()])
    return [one for one in found if one.files or one.exchanges or one.commands or one.adrift]


def _add(example: Example, line: int, piece: re.Match[str], before: str) -> None:
    language, flag, content = piece[1], piece[2], piece[3]
    named = _PATH.fullmatch(content.partition("\n")[0])
    if language == "http":
        example.exchanges.append(_exchange(line, flag == "server", content))
    elif language == "console":
        example.commands += _commands(line, content)
    elif named is not None or language == "python":
        name = named[1] if named else _named_before(before)
        if name is None or name in example.files:
            example.adrift.append(f"line {line}: {name or 'a block without a path'}")
        else:
            example.files[name] = content
    elif language not in FOREIGN:
        example.adrift.append(f"line {line}: a block in {language}")


def _named_before(before: str) -> str | None:
    """The file that the paragraph right before a block speaks of."""
    names = _NAMED.findall(before.rstrip().rpartition("\n\n")[2])
    return names[-1] if names else None


def _exchange(line: int, server_only: bool, content: str) -> Exchange:
    status = re.search(rf"^{_STATUS.pattern}$", content, re.MULTILINE)
    assert status is not None, f"line {line}: no answer"
    request, answer = content[: status.start()].rstrip("\n"), content[status.end() + 1 :].rstrip("\n")
    first, _, rest = request.partition("\n")
    method, _, target = first.partition(" ")
    headers, body = _fields(rest)
    fields, text = _fields(answer)
    cut = text.endswith(_CUT)
    expected = Message(int(status[1]), fields, text.removesuffix(_CUT).rstrip("\n"), cut)
    return Exchange(line, server_only, method, target, dict(headers), body.encode(), expected)


def _fields(text: str) -> tuple[list[tuple[str, str]], str]:
    """Header lines, and what follows the empty line after them."""
    lines = text.split("\n") if text else []
    headers = []
    while lines and (found := re.fullmatch(r"([\w-]+): (.*)", lines[0])):
        headers.append((found[1].lower(), found[2]))
        lines.pop(0)
    return headers, "\n".join(lines).removeprefix("\n")


def _commands(line: int, content: str) -> list[tuple[int, str, str]]:
    parts = re.split(r"^\$ (.*)\n", content, flags=re.MULTILINE)
    return [(line, command, output) for command, output in zip(parts[1::2], parts[2::2], strict=True)]


def matches(expected: str, got: str) -> bool:
    """Whether `got` is `expected`, in which `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, got, re.DOTALL) is not None


def ask_server(port: int, exchange: Exchange) -> Message:
    """Send it to a server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    try:
        connection.request(exchange.method, exchange.target, exchange.body or None, exchange.headers)
        response = connection.getresponse()
        headers = [(name.lower(), value) for name, value in response.getheaders()]
        try:
            body, cut = response.read(), False
        except http.client.IncompleteRead as error:
            body, cut = error.partial, True
    finally:
        connection.close()
    return Message(response.status, headers, body.decode(errors="replace"), cut)


def ask_client(client: Client, exchange: Exchange) -> Message:
    """Send it to the client for tests."""
    try:
        answer = client.request(exchange.method, exchange.target, headers=exchange.headers, data=exchange.body)
        cut = False
    except Cut as error:
        answer, cut = error.answer, True
    return Message(answer.status, answer.headers.items(), b"".join(answer.chunks).decode(errors="replace"), cut)


def run_command(root: Path, command: str) -> str:
    """What a command line of the page prints, on both streams."""
    words = command.split()
    assert words[0] == "lampyr", command
    done = subprocess.run(
        [sys.executable, "-u", "-m", *words],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return re.sub(r"^lampyr: importing .*\(\d+ of \d+\)\n", "", done.stdout, flags=re.MULTILINE)  # of a slow machine
