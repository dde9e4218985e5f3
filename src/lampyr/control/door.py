"""The door of a running server: a Unix socket in its state directory, at which the command line asks control.

Both sides write one JSON object a line: `{"version": 1, "key": "...", "do": "ps", ...}` is answered with
`{"version": 1, "result": ...}` or `{"version": 1, "error": {"code", "message", "hint", "problems"}}`. Where a request
has a "number", its answer has it too: answers come as they are ready.

The socket is its owner's alone (0600), and the functions' rooms do not have it. Where there are no rooms Landlock hides
files but no sockets, and an ordinary user's functions are that user too: so whoever comes in shows a key, which is
in a file that the functions cannot read either.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampyr.errors import LampyrError, StateError
from lampyr.runtime.channel import Message
from lampyr.types import Problem

if TYPE_CHECKING:
    from io import BufferedRWPair

VERSION = 1
SOCKET, KEY = "door", "door.key"
MAX_VISITORS = 32
MAX_REQUEST_BYTES = 1024 * 1024
# Control answers in milliseconds, or as soon as there is a gateway again.
PATIENCE_S = 10.0

Reply = Callable[[Any], None]


# --- making it (serve)


def build(state_dir: Path) -> tuple[socket.socket, str]:
    """The listening socket and the key. An earlier server's are replaced: the caller holds the lock."""
    remove(state_dir)
    key = secrets.token_urlsafe(32)
    sock = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o177)
    try:
        (state_dir / KEY).write_text(key)
        with _address(state_dir) as address:
            sock.bind(address)
    except OSError as error:
        sock.close()
        raise StateError(
            f"no socket can be made in the state directory {state_dir}: {error.strerror or error}",
            "name one on a local disk and with a shorter path with --state-dir",
        ) from error
    finally:
        os.umask(umask)
    sock.listen(MAX_VISITORS)
    return sock, key


def remove(state_dir: Path) -> None:
    """Take the door away."""
    for name in (SOCKET, KEY):
        (state_dir / name).unlink(missing_ok=True)


@contextmanager
def _address(state_dir: Path) -> Iterator[str]:
    """A short name of the socket: an address has room for 107 bytes (unix(7)), and projects lie deeper than that."""
    if not os.path.isdir("/proc/self/fd"):
        yield str(state_dir / SOCKET)
        return
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


# --- standing at it (control)


class Door:
    """Lets visitors in and reads what they want; never waits for one.

    `answer(request, reply)` is called for each request and calls `reply(result)` now or later; a LampyrError, raised or
    given to `reply`, is told to the visitor. `turn()` is due whenever `fileno()` can be read. Who wants `elsewhere` is
    handed over to `show(socket)`, and what else he says is not read here.
    """

    def __init__(
        self,
        sock: socket.socket,
        key: str,
        answer: Callable[[Message, Reply], None],
        elsewhere: str = "",
        show: Callable[[socket.socket], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._elsewhere = elsewhere
        self._show = show
        self._sock = sock
        self._key = key.encode()
        self._answer = answer
        self._visitors: list[Visitor] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ, self._let_in)

    def fileno(self) -> int:
        return self._selector.fileno()

    def turn(self) -> None:
        """Act on what has come."""
        for one, _ in self._selector.select(0):
            one.data()

    def _let_in(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return  # it has left already
        self._admit(Visitor(sock, self))
        strangers = [one for one in self._visitors if not one.known]
        if len(strangers) > MAX_VISITORS:
            strangers[0].close()

    def welcome(self, sock: socket.socket) -> None:
        """The supervisor brings somebody who need not show the key: the console."""
        self._admit(Visitor(sock, self, known=True))

    def _admit(self, visitor: Visitor) -> None:
        self._visitors.append(visitor)
        self._selector.register(visitor.sock, selectors.EVENT_READ, visitor.turn)

    def watch(self, visitor: Visitor, events: int) -> None:
        self._selector.modify(visitor.sock, events, visitor.turn)

    def forget(self, visitor: Visitor) -> None:
        self._selector.unregister(visitor.sock)
        self._visitors.remove(visitor)

    def ask(self, visitor: Visitor, line: bytes) -> None:
        """Act on one request."""
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        number = request.get("number") if isinstance(request, dict) else None
        reply = partial(visitor.reply, number=number)
        try:
            self._check(request, visitor)
            if self._show is not None and request.get("do") == self._elsewhere and not visitor.known:
                self._show(visitor.leave())
            else:
                self._answer(request, reply)
        except LampyrError as error:
            reply(error)

    def _check(self, request: Any, visitor: Visitor) -> None:
        """Raises LampyrError."""
        if not isinstance(request, dict):
            raise LampyrError("a request is one JSON object on a line")
        if request.get("version") != VERSION:
            raise StateError(
                "the server is of another version of Lampyr", "restart it, or use the command it came with"
            )
        if not visitor.known and not hmac.compare_digest(str(request.get("key")).encode(), self._key):
            raise StateError("the key is not that of this server", f"it is in {KEY} in the state directory")


class Visitor:
    """One connection: lines in, lines out."""

    def __init__(self, sock: socket.socket, door: Door, *, known: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.known = known
        self._door = door
        self._inbox = b""
        self._outbox = b""
        self._closed = False

    def turn(self) -> None:
        """Write what is left to write, read what has come."""
        if self._outbox:
            self._write()
        if not self._closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        if not data or len(self._inbox) > MAX_REQUEST_BYTES:
            self.close()
            return
        for line in lines:
            self._door.ask(self, line)

    def reply(self, result: Any, number: object = None) -> None:
        """Send a result or an error, if the visitor is still there, with the `number` that the request had."""
        if self._closed:
            return
        if isinstance(result, LampyrError):
            error = {"code": result.code, "message": result.message, "hint": result.hint}
            told: Message = {"error": {**error, "problems": [asdict(one) for one in result.problems]}}
        else:
            told = {"result": result}
        if number is not None:
            told["number"] = number
        self._outbox += json.dumps({"version": VERSION, **told}, separators=(",", ":")).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        try:
            self._outbox = self._outbox[self.sock.send(self._outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._door.watch(self, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0))

    def leave(self) -> socket.socket:
        """Go: the socket is somebody else's now."""
        self._closed = True
        self._door.forget(self)
        return self.sock

    def close(self) -> None:
        if not self._closed:
            self.leave().close()


# --- knocking at it (the command line)


class Nobody(StateError):
    """No server runs there."""


def ask(
    state_dir: Path, do: str, *, then: Message | None = None, patience_s: float | None = PATIENCE_S, **more: Any
) -> Any:
    """The result of one request to the server that runs on `state_dir`. Raises LampyrError.

    With `then`, that of a second one to whom the first has led to.
    """
    with _knock(state_dir) as (sock, key):
        sock.settimeout(patience_s)
        try:
            with sock.makefile("rwb") as lines:
                line = _say(lines, {"version": VERSION, "key": key, "do": do, **more})
                if then is not None and b'"result"' in line:
                    line = _say(lines, then)
        except TimeoutError:
            raise _silent(state_dir) from None
        except OSError:
            line = b""
    if not line.endswith(b"\n"):
        raise StateError(f"the server on {state_dir} hung up", "ask again; its log says what happened")
    answer = json.loads(line)
    if (error := answer.get("error")) is not None:
        told = LampyrError(error["message"], error["hint"], [Problem(**one) for one in error.get("problems", ())])
        told.code = error["code"]
        raise told
    return answer["result"]


def _silent(state_dir: Path) -> StateError:
    return StateError(f"the server on {state_dir} does not answer", "see what its log says")


def _say(lines: BufferedRWPair, message: Message) -> bytes:
    lines.write(json.dumps(message).encode() + b"\n")
    lines.flush()
    return lines.readline()


@contextmanager
def _knock(state_dir: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX) as sock, suppress(BrokenPipeError):
        # With a timeout of Python's, connect() would not wait at all where others stand at the door: EAGAIN (unix(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(PATIENCE_S), 0))
        try:
            key = (state_dir / KEY).read_text()
            with _address(state_dir) as address:
                sock.connect(address)
        except PermissionError:
            raise StateError(f"the server on {state_dir} is another user's", "ask as the user who started it") from None
        except BlockingIOError:
            raise _silent(state_dir) from None
        except OSError:
            raise Nobody(
                f"no server runs on the state directory {state_dir}",
                "`lampyr start` or `lampyr dev` starts one; name its folder, or its --state-dir",
            ) from None
        yield sock, key
