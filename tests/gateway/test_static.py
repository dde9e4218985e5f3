"""Files of public/ through the real front door, on a real socket."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import uvloop

from lampyr.gateway import answers, media_types, static
from lampyr.gateway.http import Connection, Connections, Exchange
from lampyr.gateway.static import Files

TEXT = b"0123456789abcdefghij"
MODIFIED_S = 1_700_000_000
MODIFIED = formatdate(MODIFIED_S, usegmt=True)
LATER, EARLIER = formatdate(MODIFIED_S + 1, usegmt=True), formatdate(MODIFIED_S - 1, usegmt=True)


class Server:
    """A gateway that serves nothing but files, on a loop in a thread of its own."""

    def __init__(self, root: Path) -> None:
        self.files = Files(root)
        self.loop = uvloop.new_event_loop()
        self.registry = Connections()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        started.wait()

    def _run(self, started: threading.Event) -> None:
        async def listen() -> None:
            server: Any = await self.loop.create_server(
                lambda: Connection(self.serve, lambda: "id", self.registry), "127.0.0.1", 0
            )
            self.port = server.sockets[0].getsockname()[1]
            self._server = server
            started.set()

        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(listen())
        self.loop.run_forever()
        self.loop.close()

    def serve(self, exchange: Exchange) -> None:
        file = self.files.find(unquote(exchange.target))
        if file is None:
            exchange.answer(*answers.error("NOT_FOUND", None, exchange.id))
        else:
            static.serve(self.files, exchange, file)

    def close(self) -> None:
        def end() -> None:
            self._server.close()
            for connection in list(self.registry.open):
                connection._transport.abort()
            self.loop.call_later(0.05, self.loop.stop)

        self.loop.call_soon_threadsafe(end)
        self._thread.join()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()


@pytest.fixture
def public(tmp_path: Path) -> Path:
    root = tmp_path / "public"
    root.mkdir()
    write(root / "a.txt", TEXT)
    return root


@pytest.fixture
def start() -> Iterator[Callable[[Path], Server]]:
    servers: list[Server] = []

    def one(root: Path) -> Server:
        servers.append(Server(root))
        return servers[-1]

    yield one
    for server in servers:
        server.close()


@pytest.fixture
def server(public: Path, start: Callable[[Path], Server]) -> Server:
    return start(public)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (MODIFIED_S, MODIFIED_S))


class TestWholeFiles:
    def test_get(self, server: Server) -> None:
        status, headers, body = server.ask("/a.txt")
        assert (status, body) == (200, TEXT)
        expected = {
            "content-type": "text/plain; charset=utf-8",
            "content-length": "20",
            "last-modified": MODIFIED,
            "cache-control": "public, max-age=0",
            "accept-ranges": "bytes",
        }
        assert expected.items() <= headers.items()
        surprises = headers.keys() - expected.keys() - {"etag", "x-lampyr-id", "server-timing", "date"}
        assert not surprises

    def test_the_etag_is_strong(self, server: Server) -> None:
        etag = server.ask("/a.txt")[1]["etag"]
        assert etag[0] == etag[-1] == '"'

    @pytest.mark.parametrize("path", ["/a.txt", "/empty.txt", "/big.bin"])
    def test_head_is_get_without_its_body(self, public: Path, start: Callable[[Path], Server], path: str) -> None:
        write(public / "empty.txt", b"")
        write(public / "big.bin", b"x" * (static.PIECE_BYTES + 1))
        server = start(public)
        _, of_get, body = server.ask(path)
        status, of_head, nothing = server.ask(path, "HEAD")
        for headers in (of_get, of_head):
            del headers["date"]
        assert (status, of_head, nothing) == (200, of_get, b"")
        assert of_head["content-length"] == str(len(body))

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_other_methods(self, server: Server, method: str) -> None:
        status, headers, _ = server.ask("/a.txt", method)
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        assert headers["x-lampyr-error"] == "METHOD_NOT_ALLOWED"

    def test_options(self, server: Server) -> None:
        status, headers, body = server.ask("/a.txt", "OPTIONS")
        assert (status, headers["allow"], body) == (204, "GET, HEAD", b"")

    def test_a_changed_file_has_another_etag_and_is_served_as_it_is_now(self, public: Path, server: Server) -> None:
        before = server.ask("/a.txt")[1]["etag"]
        (public / "a.txt").write_bytes(TEXT[::-1])
        status, headers, body = server.ask("/a.txt", if_none_match=before)
        assert (status, body) == (200, TEXT[::-1])
        assert headers["etag"] != before

    def test_a_file_of_the_future_was_modified_now_at_the_latest(self, public: Path, server: Server) -> None:
        os.utime(public / "a.txt", (time.time() + 10_000, time.time() + 10_000))
        _, headers, _ = server.ask("/a.txt")
        assert parsedate_to_datetime(headers["last-modified"]) <= parsedate_to_datetime(headers["date"])

    def test_a_removed_file_is_not_found(self, public: Path, server: Server) -> None:
        (public / "a.txt").unlink()
        status, headers, _ = server.ask("/a.txt")
        assert (status, headers["x-lampyr-error"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("if_none_match", "{etag}", 304),
        ("if_none_match", "W/{etag}", 304),
        ("if_none_match", '"other", {etag}', 304),
        ("if_none_match", '"a,b" ,W/"c" , {etag} ', 304),
        ("if_none_match", "*", 304),
        ("if_none_match", '"other"', 200),
        ("if_none_match", "nonsense", 200),
        ("if_modified_since", MODIFIED, 304),
        ("if_modified_since", LATER, 304),
        ("if_modified_since", EARLIER, 200),
        ("if_modified_since", "yesterday", 200),
        ("if_modified_since", "Tuesday, 14-Nov-23 22:13:20 GMT", 304),
        ("if_modified_since", "Tue Nov 14 22:13:20 2023", 304),
        ("if_match", "{etag}", 200),
        ("if_match", "*", 200),
        ("if_match", '"other"', 412),
        ("if_match", "W/{etag}", 412),
        ("if_match", '"other", {etag}', 200),
        ("if_unmodified_since", MODIFIED, 200),
        ("if_unmodified_since", LATER, 200),
        ("if_unmodified_since", EARLIER, 412),
        ("if_unmodified_since", "yesterday", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(server: Server, method: str, header: str, value: str, expected: int) -> None:
    etag = server.ask("/a.txt")[1]["etag"]
    status, headers, body = server.ask("/a.txt", method, **{header: value.format(etag=etag)})
    assert status == expected
    assert headers["etag"] == etag
    assert headers.get("x-lampyr-error") == ("PRECONDITION_FAILED" if status == 412 else None)
    if status == 304:
        assert body == b""
        assert headers["cache-control"] == "public, max-age=0"
        assert "content-length" not in headers and "content-type" not in headers


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"if_none_match": '"other"', "if_modified_since": LATER}, 200),
        ({"if_none_match": "{etag}", "if_modified_since": EARLIER}, 304),
        ({"if_match": "{etag}", "if_unmodified_since": EARLIER}, 200),
        ({"if_match": '"other"', "if_none_match": "{etag}"}, 412),
        ({"if_match": "{etag}", "if_none_match": "{etag}"}, 304),
        ({"if_none_match": "{etag}", "range": "bytes=0-1"}, 304),
    ],
)
def test_the_order_of_conditions(server: Server, conditions: dict[str, str], expected: int) -> None:
    etag = server.ask("/a.txt")[1]["etag"]
    assert server.ask("/a.txt", **{name: value.format(etag=etag) for name, value in conditions.items()})[0] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-4", (206, "bytes 0-4/20", b"01234")),
        ("bytes=0-0", (206, "bytes 0-0/20", b"0")),
        ("bytes=15-", (206, "bytes 15-19/20", b"fghij")),
        ("bytes=-3", (206, "bytes 17-19/20", b"hij")),
        ("bytes=-100", (206, "bytes 0-19/20", TEXT)),
        ("bytes=18-99999999999999999999999999", (206, "bytes 18-19/20", b"ij")),
        ("bytes=00000000000000000000000018-19", (206, "bytes 18-19/20", b"ij")),
        ("BYTES=0-4", (206, "bytes 0-4/20", b"01234")),
        ("bytes= 0-4 ,", (206, "bytes 0-4/20", b"01234")),
        ("bytes=0-4, 50-60", (206, "bytes 0-4/20", b"01234")),
        ("bytes=20-", (416, "bytes */20", b"RANGE_NOT_SATISFIABLE")),
        ("bytes=999999999999999999999999-", (416, "bytes */20", b"RANGE_NOT_SATISFIABLE")),
        ("bytes=-0", (416, "bytes */20", b"RANGE_NOT_SATISFIABLE")),
        ("bytes=20-,30-40", (416, "bytes */20", b"RANGE_NOT_SATISFIABLE")),
        ("bytes=0-1,3-4", (200, None, TEXT)),
        ("bytes=4-2", (200, None, TEXT)),
        ("bytes=", (200, None, TEXT)),
        ("bytes=-", (200, None, TEXT)),
        ("bytes=a-b", (200, None, TEXT)),
        ("bytes=+1-2", (200, None, TEXT)),
        ("bytes 0-4", (200, None, TEXT)),
        ("lines=0-4", (200, None, TEXT)),
        ("bytes=0-4;x", (200, None, TEXT)),
    ],
)
def test_ranges(server: Server, value: str, expected: tuple[int, str | None, bytes]) -> None:
    status, headers, body = server.ask("/a.txt", range=value)
    error = json.loads(body)["error"]["code"].encode() if status == 416 else body
    assert (status, headers.get("content-range"), error) == expected
    assert headers.get("x-lampyr-error") == ("RANGE_NOT_SATISFIABLE" if status == 416 else None)
    assert headers["content-length"] == str(len(body))
    assert headers["cache-control"] == "public, max-age=0"


class TestRangesMore:
    def test_head_ignores_a_range(self, server: Server) -> None:
        status, headers, _ = server.ask("/a.txt", "HEAD", range="bytes=0-4")
        assert (status, headers["content-length"]) == (200, "20")

    def test_an_empty_file_has_no_range(self, public: Path, start: Callable[[Path], Server]) -> None:
        write(public / "empty.txt", b"")
        status, headers, _ = start(public).ask("/empty.txt", range="bytes=0-")
        assert (status, headers["content-range"]) == (416, "bytes */0")

    @pytest.mark.parametrize(
        ("if_range", "expected"),
        [
            ("{etag}", 206),
            ("W/{etag}", 200),
            ('"other"', 200),
            (MODIFIED, 206),
            (LATER, 200),
            (EARLIER, 200),
            ("nonsense", 200),
        ],
    )
    def test_if_range(self, server: Server, if_range: str, expected: int) -> None:
        etag = server.ask("/a.txt")[1]["etag"]
        assert server.ask("/a.txt", range="bytes=0-1", if_range=if_range.format(etag=etag))[0] == expected

    def test_a_big_range_of_a_big_file(self, public: Path, start: Callable[[Path], Server]) -> None:
        data = os.urandom(3 * static.TURN_BYTES)
        write(public / "big.bin", data)
        status, headers, body = start(public).ask("/big.bin", range="bytes=1000-2999999")
        assert (status, headers["content-length"]) == (206, str(2_999_000))
        assert body == data[1000:3_000_000]


class TestBigFiles:
    SIZE = 64 * 1024 * 1024

    @pytest.fixture
    def big(self, public: Path, start: Callable[[Path], Server]) -> Server:
        with open(public / "big.bin", "wb") as file:
            file.truncate(self.SIZE)
        return start(public)

    def connect(self, server: Server) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=40)
        sock.sendall(b"GET /big.bin HTTP/1.1\r\nhost: x\r\n\r\n")
        return sock

    def open_files(self, public: Path) -> int:
        found = 0
        for fd in os.listdir("/proc/self/fd"):
            try:
                found += os.readlink(f"/proc/self/fd/{fd}").startswith(str(public / "big.bin"))
            except OSError:
                continue
        return found

    def wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.01)

    def test_it_arrives_complete_and_is_closed(self, public: Path, big: Server) -> None:
        status, headers, body = big.ask("/big.bin")
        assert (status, headers["content-length"], len(body)) == (200, str(self.SIZE), self.SIZE)
        self.wait(lambda: self.open_files(public) == 0)

    def test_a_client_that_does_not_read_stops_the_reading(self, big: Server) -> None:
        read: list[int] = []
        pread = os.pread

        def noted(fd: int, size: int, at: int) -> bytes:
            read.append(size)
            return pread(fd, size, at)

        os.pread = noted
        try:
            with self.connect(big) as sock:
                sock.recv(1)
                looks = [-1] * 50
                while looks[0] != sum(read):  # unchanged over fifty looks, half a second
                    looks = [*looks[1:], sum(read)]
                    time.sleep(0.01)
                assert looks[0] < self.SIZE / 4, "what the sockets and one write buffer take, and no more"
                left = self.SIZE
                while left > 0 and (piece := sock.recv(1 << 20)):
                    left -= len(piece)
                assert left <= 0
        finally:
            os.pread = pread

    def test_a_client_that_leaves_closes_the_file(self, public: Path, big: Server) -> None:
        sock = self.connect(big)
        sock.recv(1)
        assert self.open_files(public) == 1
        sock.close()
        self.wait(lambda: self.open_files(public) == 0)

    def test_a_file_truncated_meanwhile_ends_visibly_broken(self, public: Path, big: Server) -> None:
        with self.connect(big) as sock:
            sock.recv(1)
            os.truncate(public / "big.bin", 1000)
            received = 0
            try:
                while piece := sock.recv(1 << 20):
                    received += len(piece)
            except ConnectionResetError:
                pass
            assert received < self.SIZE
        self.wait(lambda: self.open_files(public) == 0)


class TestWhatIsServed:
    @pytest.mark.parametrize(
        ("file", "path", "served"),
        [
            ("index.html", "/", True),
            ("index.html", "/index.html", True),
            ("docs/index.html", "/docs", True),
            ("docs/index.html", "/docs/index.html", True),
            ("docs/other.html", "/docs", False),
            ("a b/ü€.txt", "/a%20b/%C3%BC%E2%82%AC.txt", True),
            ("deep/er/and/deeper.css", "/deep/er/and/deeper.css", True),
            ("noextension", "/noextension", True),
            ("%2e", "/%252e", True),
            (".env", "/.env", False),
            (".git/config", "/.git/config", False),
            ("a/.hidden/b.txt", "/a/.hidden/b.txt", False),
            (".well-known/security.txt", "/.well-known/security.txt", False),
            ("_lampyr/env.js", "/_lampyr/env.js", False),
            ("_lampyr/index.html", "/_lampyr", False),
            ("a/_lampyr/b.txt", "/a/_lampyr/b.txt", True),
        ],
    )
    def test_files(self, public: Path, file: str, path: str, served: bool) -> None:
        write(public / file, b"x")
        assert (Files(public).find(unquote(path)) is not None) == served

    @pytest.mark.parametrize(
        "path",
        [
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/a.txt/../../secret.txt",
            "//a.txt",
            "/a.txt/",
            "/./a.txt",
            "/A.TXT",
            "/a.txt%00",
            "/..\\secret.txt",
            "a.txt",
            "",
        ],
    )
    def test_no_spelling_leads_out(self, public: Path, path: str) -> None:
        write(public.parent / "secret.txt", b"secret")
        assert Files(public).find(unquote(path)) is None

    def test_case_matters_and_folders_are_no_files(self, public: Path) -> None:
        write(public / "Docs/a.txt", b"x")
        files = Files(public)
        assert files.find("/docs/a.txt") is None
        assert files.find("/Docs") is None

    def test_pipes_and_sockets_are_no_files(self, public: Path) -> None:
        os.mkfifo(public / "pipe")
        assert Files(public).find("/pipe") is None

    def test_a_missing_folder_has_no_files(self, tmp_path: Path) -> None:
        assert Files(tmp_path / "public").find("/") is None


class TestLinks:
    @pytest.mark.parametrize(
        ("link", "target", "path", "served"),
        [
            ("link.txt", "a.txt", "/link.txt", True),
            ("folder", "real", "/folder/b.txt", True),
            ("folder", "real/..", "/folder/a.txt", False),
            ("real/up", "..", "/real/up/a.txt", False),
            ("out.txt", "../secret.txt", "/out.txt", False),
            ("out", "..", "/out/secret.txt", False),
            ("etc", "/etc", "/etc/passwd", False),
            ("hidden.txt", ".dot/c.txt", "/hidden.txt", False),
            ("dangling", "nowhere", "/dangling", False),
            ("self", "self", "/self", False),
            ("twin", "../public-twin/d.txt", "/twin", False),
        ],
    )
    def test_links(self, public: Path, link: str, target: str, path: str, served: bool) -> None:
        write(public / "real/b.txt", b"b")
        write(public / ".dot/c.txt", b"c")
        write(public.parent / "secret.txt", b"secret")
        write(public.parent / "public-twin/d.txt", b"d")
        (public / link).symlink_to(target)
        assert (Files(public).find(path) is not None) == served

    def test_many_links_among_folders_end(self, public: Path) -> None:
        names = [f"f{number}" for number in range(8)]
        for name in names:
            write(public / name / "a.txt", b"a")
        for name in names:
            for other in names:
                (public / name / f"to-{other}").symlink_to(f"../{other}")
        assert Files(public).find("/f1/to-f2/a.txt") is not None

    def test_a_file_swapped_for_a_link_is_not_followed(self, public: Path, server: Server) -> None:
        write(public.parent / "secret.txt", b"secret")
        (public / "a.txt").unlink()
        (public / "a.txt").symlink_to("../secret.txt")
        assert server.ask("/a.txt")[0] == 404

    def test_a_folder_swapped_for_a_link_is_not_followed(self, public: Path, start: Callable[[Path], Server]) -> None:
        write(public / "folder/secret.txt", b"public")
        write(public.parent / "outside/secret.txt", b"secret")
        server = start(public)
        (public / "folder").rename(public / "moved")
        (public / "folder").symlink_to("../outside")
        assert server.ask("/folder/secret.txt")[0] == 404

    def test_a_file_swapped_for_a_pipe_does_not_block(self, public: Path, server: Server) -> None:
        (public / "a.txt").unlink()
        os.mkfifo(public / "a.txt")
        assert server.ask("/a.txt")[0] == 404

    def test_the_root_itself_may_be_a_link(self, public: Path) -> None:
        (public.parent / "link").symlink_to(public)
        assert Files(public.parent / "link").find("/a.txt") is not None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.html", b"text/html; charset=utf-8"),
        ("a.HTM", b"text/html; charset=utf-8"),
        ("a.css", b"text/css; charset=utf-8"),
        ("a.js", b"text/javascript; charset=utf-8"),
        ("a.mjs", b"text/javascript; charset=utf-8"),
        ("a.md", b"text/markdown; charset=utf-8"),
        ("a.txt", b"text/plain; charset=utf-8"),
        ("a.csv", b"text/csv; charset=utf-8"),
        ("a.json", b"application/json"),
        ("a.js.map", b"application/json"),
        ("a.webmanifest", b"application/manifest+json"),
        ("a.xml", b"application/xml"),
        ("a.svg", b"image/svg+xml"),
        ("a.png", b"image/png"),
        ("a.jpg", b"image/jpeg"),
        ("a.avif", b"image/avif"),
        ("a.webp", b"image/webp"),
        ("a.gif", b"image/gif"),
        ("favicon.ico", b"image/x-icon"),
        ("a.wasm", b"application/wasm"),
        ("a.woff2", b"font/woff2"),
        ("a.pdf", b"application/pdf"),
        ("a.mp4", b"video/mp4"),
        ("a.mp3", b"audio/mpeg"),
        ("a.zip", b"application/zip"),
        ("a.tar.gz", b"application/gzip"),
        ("a.svgz", b"application/octet-stream"),
        ("noextension", b"application/octet-stream"),
        ("a.unheard-of", b"application/octet-stream"),
    ],
)
def test_media_types(name: str, expected: bytes) -> None:
    assert media_types.of(name) == expected
