"""Files of `public/`, served at `/` (SPEC 3): GET and HEAD, validators, ranges, nothing that begins with a dot.

`index.html` of a folder is also served at the path of the folder: `public/index.html` at `/`, `public/docs/index.html`
at `/docs`. Files go out as they are, never compressed: a byte range then means the same bytes to every client. A
request for several ranges gets the whole file, as RFC 9110 14.2 allows: few ask, and many ranges overload servers.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lampyr.core.segments import RESERVED
from lampyr.gateway import answers, conditional, media_types, timing
from lampyr.gateway.answers import Headers

if TYPE_CHECKING:
    from lampyr.gateway.http import Exchange

ALLOW = (b"allow", b"GET, HEAD")
CACHE = (b"cache-control", b"public, max-age=0")

INDEX = "index.html"
# Pieces of this size are read from disk and handed on; a file no larger leaves in one write.
PIECE_BYTES = 128 * 1024
# After this much the event loop gets a turn, however fast the client reads.
TURN_BYTES = 1024 * 1024
_DEEPEST = 64


class File(NamedTuple):
    """A file that may be served: the names of the folders from the root to it, links resolved, and its media type."""

    parts: tuple[str, ...]
    content_type: bytes


class Files:
    """What of the folder `root` may be served: regular files reached without leaving it, no name with a dot in front.

    The folder is looked through once. Links are followed while they stay inside `root`; each step is checked again when
    a file is opened, so that one swapped in later leads nowhere. Raises nothing: what cannot be read is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._files: dict[str, File] = {}
        self._look("", (), linked=False)
        for path in [path for path in self._files if path.endswith("/" + INDEX)]:
            self._files.setdefault(path[: -len(INDEX) - 1] or "/", self._files[path])

    def find(self, path: str) -> File | None:
        """The file at a decoded, clean path ("/", "/docs/a b.txt")."""
        return self._files.get(path)

    def open(self, file: File) -> int:
        """A descriptor of `file`, read-only. Raises OSError, also where it is no longer a regular file inside the root.

        Folder after folder, none of them through a link: the path as a whole could lead elsewhere by now.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in its place must not block us
        at = os.open(self.root, flags | os.O_DIRECTORY)
        for depth, name in enumerate(file.parts, 1):
            try:
                inner = os.open(name, flags | (os.O_DIRECTORY if depth < len(file.parts) else 0), dir_fd=at)
            finally:
                os.close(at)
            at = inner
        if not stat.S_ISREG(os.fstat(at).st_mode):
            os.close(at)
            raise FileNotFoundError("not a regular file")
        return at

    def _look(self, url: str, parts: tuple[str, ...], *, linked: bool) -> None:
        """Index the folder at `parts` under the path `url`. A link to a folder is not followed behind another link."""
        try:
            with os.scandir(os.path.join(self.root, *parts)) as listing:
                entries = list(listing)
        except OSError:
            return
        for entry in entries:
            if entry.name.startswith(".") or not _is_text(entry.name) or len(parts) >= _DEEPEST:
                continue
            if not url and entry.name == RESERVED:  # what is Lampyr's own no project answers
                continue
            link = entry.is_symlink()
            inner = self._inside(entry.path) if link else (*parts, entry.name)
            if inner is None:
                continue
            path = f"{url}/{entry.name}"
            try:
                if entry.is_file():
                    self._files[path] = File(inner, media_types.of(entry.name))
                elif entry.is_dir() and not (link and (linked or inner == parts[: len(inner)])):
                    self._look(path, inner, linked=linked or link)
            except OSError:
                continue

    def _inside(self, link: str) -> tuple[str, ...] | None:
        """Where a link leads, from the root; None where that is outside, or hidden."""
        target = os.path.realpath(link)
        if target == self.root:
            return ()
        if not target.startswith(self.root.rstrip("/") + "/"):
            return None
        parts = tuple(target[len(self.root.rstrip("/")) + 1 :].split("/"))
        return None if any(part.startswith(".") for part in parts) else parts


def serve(files: Files, exchange: Exchange, file: File) -> None:
    """Answer `exchange` with `file`; a big one in pieces, as fast as the client reads, in bounded memory."""
    if exchange.method not in ("GET", "HEAD"):
        _send(exchange, refusal(exchange))
        return
    try:
        fd = files.open(file)
    except OSError:
        _send(exchange, answers.error("NOT_FOUND", None, exchange.id))
        return
    kept = False
    try:
        kept = _serve_open(exchange, file, fd)
    finally:
        if not kept:
            os.close(fd)


def _serve_open(exchange: Exchange, file: File, fd: int) -> bool:
    """Answer from the open file; true if it is still being sent."""
    facts = os.fstat(fd)
    etag = b'"%x-%x-%x"' % (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    now_s = time.time()
    modified_s = min(int(facts.st_mtime), int(now_s))  # never later than the response (RFC 9110 8.8.2.1)
    headers: Headers = [(b"etag", etag), (b"last-modified", formatdate(modified_s, usegmt=True).encode()), CACHE]
    asked = conditional.headers(exchange.headers)
    status = conditional.precondition(asked, etag, modified_s)
    if status is not None:
        failed = status == 412
        _send(exchange, _error("PRECONDITION_FAILED", exchange, headers) if failed else (status, headers, b""))
        return False
    size = facts.st_size
    start, end, status = 0, size, 200
    if exchange.method == "GET" and b"range" in asked and conditional.range_holds(asked, etag, modified_s, now_s):
        chosen = conditional.chosen_range(asked[b"range"], size)
        if chosen == conditional.UNSATISFIABLE:
            headers.append((b"content-range", b"bytes */%d" % size))
            _send(exchange, _error("RANGE_NOT_SATISFIABLE", exchange, headers))
            return False
        if chosen is not None:
            start, end = chosen
            status = 206
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
    headers += [(b"content-type", file.content_type), (b"accept-ranges", b"bytes")]
    if end - start <= PIECE_BYTES and exchange.method == "GET":
        return _send_small(exchange, (status, headers), fd, start, end - start)
    headers.append(timing.NONE)
    exchange.start(status, headers, end - start)
    if exchange.method == "HEAD":
        exchange.end()
        return False
    exchange.receiver = sending = Sending(exchange, fd, start, end)
    return sending.go()


def _send_small(exchange: Exchange, head: tuple[int, Headers], fd: int, start: int, size: int) -> bool:
    body = os.pread(fd, size, start) if size else b""
    if len(body) < size:  # truncated this moment: say so rather than promise other bytes
        _send(exchange, answers.error("INTERNAL_ERROR", None, exchange.id))
    else:
        _send(exchange, (*head, body))
    return False


def _error(code: str, exchange: Exchange, headers: Headers) -> answers.Answer:
    return answers.error(code, None, exchange.id, *headers)


def refusal(exchange: Exchange) -> answers.Answer:
    """The answer to a method that is neither GET nor HEAD."""
    if exchange.method == "OPTIONS":
        return 204, [ALLOW], b""
    return answers.error("METHOD_NOT_ALLOWED", "A static file answers GET and HEAD only.", exchange.id, ALLOW)


def _send(exchange: Exchange, answer: answers.Answer) -> None:
    status, headers, body = answer
    exchange.answer(status, [*headers, timing.NONE], body)


class Sending:
    """A `Receiver`: one open file on its way to a client. Owns the descriptor and closes it whatever happens."""

    __slots__ = ("_at", "_end", "_exchange", "_fd")

    def __init__(self, exchange: Exchange, fd: int, start: int, end: int) -> None:
        self._exchange = exchange
        self._fd = fd
        self._at = start
        self._end = end

    def go(self) -> bool:
        """Send until the client does not read, or a turn is over; false once the file is closed."""
        turn_end = self._at + TURN_BYTES
        while self._fd >= 0 and self._exchange.writable:
            if self._at >= turn_end:
                asyncio.get_running_loop().call_soon(self.go)
                break
            self._send_piece()
        return self._fd >= 0

    def _send_piece(self) -> None:
        try:
            piece = os.pread(self._fd, min(PIECE_BYTES, self._end - self._at), self._at)
        except OSError:
            piece = b""
        if not piece:  # truncated, or the disk failed: the length was promised, so the client must see a broken end
            self._close()
            self._exchange.cut()
            return
        self._at += len(piece)
        self._exchange.write(piece)
        if self._at >= self._end and self._fd >= 0:
            self._close()
            self._exchange.end()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def body(self, piece: bytes) -> None:
        """A body of a GET has no meaning (RFC 9110 9.3.1)."""

    def body_end(self) -> None:
        """Nothing waits for it."""

    def left(self) -> None:
        """The client is gone."""
        self._close()

    def drained(self) -> None:
        """The client reads again."""
        self.go()


def _is_text(name: str) -> bool:
    """Whether a URL can name it: names that are not UTF-8 have surrogates here (PEP 383)."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)
