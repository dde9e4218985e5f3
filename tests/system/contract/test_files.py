"""SPEC 1 and 3, static files of public/: what is served, in what parts, and what never is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from contract import Line, Reply
from serving import Server

DIGITS = b"0123456789abcdefghij"
BIG = hashlib.sha256(b"big").digest() * 20_000
HELD = "held back"
ROUTES = {"beside": "def GET(): return 'a function beside the files'"}


def prepare(root: Path) -> None:
    """Files that are not text, and links, before the server starts."""
    public = root / "public"
    for name, data in {
        "index.html": b"<p>home</p>",
        "digits.txt": DIGITS,
        "empty.css": b"",
        "big.bin": BIG,
        "docs/index.html": b"<p>docs</p>",
        "a b/\N{LATIN SMALL LETTER E WITH ACUTE}.txt": b"spaces",
        "plus+.svg": b"<svg/>",
        ".hidden": HELD.encode(),
        ".git/config": HELD.encode(),
        "docs/.env": HELD.encode(),
    }.items():
        path = public / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (root / "outside.txt").write_text(HELD)
    (public / "out.txt").symlink_to(root / "outside.txt")
    (public / "etc").symlink_to("/etc")
    (public / "up").symlink_to("..")
    (public / "to-hidden.txt").symlink_to(".hidden")
    (public / "inside.txt").symlink_to("digits.txt")
    (public / "dangling.txt").symlink_to("nowhere")


def ask(server: Server, target: str, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
    with Line(server.port) as line:
        return line.ask(method, target, headers).reply(method)


@pytest.mark.parametrize(
    ("target", "content_type", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<p>home</p>"),
        ("/index.html", "text/html; charset=utf-8", b"<p>home</p>"),
        ("/docs", "text/html; charset=utf-8", b"<p>docs</p>"),
        ("/digits.txt", "text/plain; charset=utf-8", DIGITS),
        ("/%64igits.txt", "text/plain; charset=utf-8", DIGITS),
        ("/docs/../digits.txt", "text/plain; charset=utf-8", DIGITS),
        ("/digits.txt?v=1", "text/plain; charset=utf-8", DIGITS),
        ("/empty.css", "text/css; charset=utf-8", b""),
        ("/big.bin", "application/octet-stream", BIG),
        ("/a%20b/%C3%A9.txt", "text/plain; charset=utf-8", b"spaces"),
        ("/plus+.svg", "image/svg+xml", b"<svg/>"),
        ("/plus%2B.svg", "image/svg+xml", b"<svg/>"),
        ("/inside.txt", "text/plain; charset=utf-8", DIGITS),
    ],
)
def test_a_file(server: Server, target: str, content_type: str, body: bytes) -> None:
    """GET and HEAD, with validators, and nothing encoded that a range could be asked of."""
    reply = ask(server, target, headers={"Accept-Encoding": "gzip, br"})
    assert (reply.status, reply["content-type"], reply.body) == (200, content_type, body)
    assert (reply["content-length"], reply["content-encoding"]) == (str(len(body)), None)
    assert (reply["cache-control"], reply["accept-ranges"]) == ("public, max-age=0", "bytes")
    assert reply["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert reply.names == {
        "content-type", "content-length", "cache-control", "accept-ranges", "last-modified", "etag", "date",
        "x-lampyr-id", "server-timing",
    }  # fmt: skip
    head = ask(server, target, "HEAD")
    assert (head.status, head.body, head["content-length"]) == (200, b"", str(len(body)))
    assert head["etag"] == reply["etag"]


@pytest.mark.parametrize(
    "target",
    [
        "/.hidden", "/%2ehidden", "/.git/config", "/docs/.env", "/docs/%2Eenv", "/out.txt", "/etc/passwd", "/up",
        "/up/lampyr.toml", "/to-hidden.txt", "/dangling.txt", "/a b", "/a%20b", "/docs%2Findex.html", "/DIGITS.TXT",
        "/digits.txt%20", "/../lampyr.toml", "/%2e%2e/lampyr.toml", "/..%2flampyr.toml", "/docs/..%2f..%2flampyr.toml",
        "/public/digits.txt", "/etc", "/digits.txt/x", "/lampyr.toml", "/.env", "/app/standard", "/.lampyr",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_never_served(server: Server, target: str, method: str) -> None:
    reply = ask(server, target, method)
    assert reply.status in (400, 404) and HELD.encode() not in reply.body
    assert reply.error in ("BAD_REQUEST", "NOT_FOUND")


@pytest.mark.parametrize(
    ("value", "status", "content_range", "body"),
    [
        ("bytes=0-3", 206, "bytes 0-3/20", DIGITS[:4]),
        ("bytes=5-", 206, "bytes 5-19/20", DIGITS[5:]),
        ("bytes=-4", 206, "bytes 16-19/20", DIGITS[-4:]),
        ("bytes=-100", 206, "bytes 0-19/20", DIGITS),
        ("bytes=10-100", 206, "bytes 10-19/20", DIGITS[10:]),
        ("bytes=20-", 416, "bytes */20", None),
        ("bytes=-0", 416, "bytes */20", None),
        ("bytes=3-1", 200, None, DIGITS),
        ("bytes=0-1,3-4", 200, None, DIGITS),
        ("lines=1-2", 200, None, DIGITS),
        ("bytes=a-b", 200, None, DIGITS),
    ],
)
def test_ranges(server: Server, value: str, status: int, content_range: str | None, body: bytes | None) -> None:
    reply = ask(server, "/digits.txt", headers={"Range": value})
    assert (reply.status, reply["content-range"]) == (status, content_range)
    assert body is None or reply.body == body


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"If-None-Match": "{etag}"}, 304),
        ({"If-None-Match": 'W/{etag}, "x"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 200),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 304),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": "{etag}"}, 200),
        ({"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, 412),
        ({"Range": "bytes=0-0", "If-Range": "{etag}"}, 206),
        ({"Range": "bytes=0-0", "If-Range": '"x"'}, 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(server: Server, method: str, conditions: dict[str, str], status: int) -> None:
    etag = ask(server, "/digits.txt")["etag"]
    headers = {name: value.replace("{etag}", etag or "") for name, value in conditions.items()}
    reply = ask(server, "/digits.txt", method, headers)
    assert reply.status == (200 if method == "HEAD" and status == 206 else status)
    assert reply["etag"] == etag or status == 412
    assert status != 304 or reply.body == b""


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 204), ("POST", 405), ("PUT", 405), ("PATCH", 405), ("DELETE", 405), ("LOCK", 400)],
)
def test_other_methods(server: Server, method: str, status: int) -> None:
    reply = ask(server, "/digits.txt", method)
    assert (reply.status, reply["allow"]) == (status, "GET, HEAD" if status != 400 else None)
