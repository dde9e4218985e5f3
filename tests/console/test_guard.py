"""Who gets past the console's guard: each way in and each way that is none, in the process of the test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from lampyr.console import token
from lampyr.console.app import build, refused
from lampyr.console.facts import Facts
from lampyr.console.guard import MAX_BODY_BYTES, Guard, Refused
from lampyr.console.line import Line
from lampyr.console.token import COOKIE_S, Token

SECRET = "s3cret-token-of-more-than-thirty-two-characters"
PORT = 8123
HERE = f"http://127.0.0.1:{PORT}"
COOKIE = f"lampyr-console-{PORT}"


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


@pytest.fixture
def client() -> TestClient:
    app = Starlette(
        routes=[Route("/{rest:path}", _echo, methods=["GET", "POST"])], exception_handlers={Refused: refused}
    )
    return TestClient(Guard(app, Token(SECRET), PORT), HERE, follow_redirects=False)


@pytest.fixture
def known(client: TestClient) -> TestClient:
    """A browser that has opened the address with the token."""
    client.cookies.set(COOKIE, Token(SECRET).cookie(time.time()))
    return client


def bearer(text: str = SECRET) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_nobody_gets_in_without_a_token(client: TestClient) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE"):
        answer = client.request(method, "/")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="lampyr console"'
    assert client.get("/").json()["error"]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Bearer x", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", f"Basic {SECRET}", SECRET],
)
def test_what_is_not_the_token_does_not_open(known: TestClient, given: str) -> None:
    """Not even where there is a cookie: who shows a token means it."""
    assert known.get("/", headers={"authorization": given}).status_code == 401


def test_a_program_sends_the_token_in_a_header(client: TestClient) -> None:
    assert client.get("/", headers=bearer()).status_code == 200
    assert client.post("/", headers=bearer(), content=b"hello").content == b"hello"


def test_the_address_with_the_token_leaves_a_cookie_and_a_clean_address(client: TestClient) -> None:
    answer = client.get(f"/logs?function=%2Fapi&token={SECRET}&b=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/logs?function=%2Fapi&b=")
    cookie = answer.headers["set-cookie"]
    assert SECRET not in cookie
    flags = {flag.strip().lower() for flag in cookie.split(";")[1:]}
    assert flags == {"httponly", "samesite=strict", "path=/", f"max-age={COOKIE_S}"}
    assert client.get("/logs").status_code == 200


@pytest.mark.parametrize("path", ["//elsewhere.example/", "/\\elsewhere.example", "//", "/%0d%0aset-cookie:a=b"])
def test_the_clean_address_is_one_of_the_console(client: TestClient, path: str) -> None:
    answer = client.get(f"{HERE}{path}?token={SECRET}")
    location = answer.headers["location"]
    assert answer.status_code == 303
    assert location[0] == "/" and location[1:2] not in ("/", "\\")
    assert len(answer.headers.get_list("set-cookie")) == 1


def test_a_wrong_token_in_the_address_leaves_nothing(client: TestClient) -> None:
    answer = client.get("/?token=wrong")
    assert answer.status_code == 401 and "set-cookie" not in answer.headers
    assert client.post(f"/?token={SECRET}").status_code == 401


@pytest.mark.parametrize(
    "cookie",
    ["", "x", ".", "99999999999.", "99999999999.00", SECRET, "1700000000.x", "nan.x", "９.x"],
)
def test_a_cookie_is_not_made_by_others(client: TestClient, cookie: str) -> None:
    answer = client.get("/", headers={b"cookie": f"{COOKIE}={cookie}".encode()})
    assert answer.status_code == 401


def test_a_cookie_ends(client: TestClient) -> None:
    old = Token(SECRET).cookie(time.time() - COOKIE_S - 1)
    client.cookies.set(COOKIE, old)
    assert client.get("/").status_code == 401
    client.cookies.set(COOKIE, Token(SECRET + "2").cookie(time.time()))
    assert client.get("/").status_code == 401


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", f"evil.example:{PORT}", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.2"],
)
def test_a_name_that_was_pointed_here_is_refused(known: TestClient, host: str) -> None:
    for headers in ({}, bearer()):
        answer = known.get("/", headers={"host": host, **headers})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "WRONG_HOST")
    assert "set-cookie" not in known.get(f"/?token={SECRET}", headers={"host": host}).headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:9999", "[::1]:1"])
def test_the_names_of_this_machine_are_fine(known: TestClient, host: str) -> None:
    """Also with another port, which a tunnel may have."""
    assert known.get("/", headers={"host": host, **bearer()}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:3000", "http://localhost:8123", "null", ""]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_origins_are_refused(known: TestClient, method: str, origin: str) -> None:
    """Also those that functions serve on another port of the same host, for which the browser has the cookie."""
    answer = known.request(method, "/", headers={"origin": origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "WRONG_ORIGIN")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_the_browser_says_comes_from_elsewhere_is_refused(known: TestClient, site: str) -> None:
    fetched = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert known.get("/", headers=fetched).status_code == 403
    framed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    assert known.get("/", headers=framed).status_code == 403
    followed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert known.get("/", headers=followed).status_code == 200
    assert known.post("/", headers={**followed, "origin": "null"}).status_code == 403


def test_a_change_says_where_it_comes_from(known: TestClient) -> None:
    assert known.post("/").status_code == 403
    assert known.post("/", headers={"origin": HERE, "sec-fetch-site": "same-origin"}).status_code == 200


def test_every_answer_has_the_headers_that_protect_it(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/", headers=bearer()), client.get(f"/?token={SECRET}")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "*" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_a_body_has_a_bound(client: TestClient) -> None:
    assert client.post("/", headers=bearer(), content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            yield b"x" * 65536

    assert client.post("/", headers=bearer(), content=chunks()).status_code == 413


def test_the_whole_console_stands_behind_the_guard(tmp_path: Path) -> None:
    app = build(Facts(Line(), tmp_path, tmp_path, HERE, "production"), Token(SECRET), PORT)
    client = TestClient(app, HERE)
    for path in ("/", "/metrics", "/api/functions", "/api/openapi.json", "/static/x", "/nowhere"):
        assert client.get(path).status_code == 401, path
    missing = client.get("/nowhere", headers=bearer())
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert client.delete("/", headers=bearer()).status_code == 405


def test_the_token_is_kept_and_nobody_elses(tmp_path: Path) -> None:
    first = token.keep(tmp_path)
    path = tmp_path / token.FILE
    assert len(first) >= 43 and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert token.keep(tmp_path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    assert token.keep(tmp_path) != first
