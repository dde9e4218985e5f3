"""The console of a running server: where it is, who gets in, and that it is there whatever is killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest
from serving import Answer, Serve, Server, running, until

PROJECT = {
    "app/cookies/route.py": """
        import json
        from lampyr import cookies
        rate_limit = "none"

        def GET(req):
            return {"cookies": dict(cookies().all()), "header": req.headers.get("cookie")}
    """,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("console"), PROJECT) as server:
        yield server


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    """What `lampyr console` prints."""
    return command(server, "--json")["url"]


def command(server: Server, *arguments: str) -> dict[str, str]:
    done = [sys.executable, "-m", "lampyr", "console", str(server.root), *arguments]
    found: dict[str, str] = json.loads(subprocess.run(done, capture_output=True, text=True, check=True).stdout)
    return found


def ask(address: str, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    """As a program does that has the token, unless `headers` say otherwise."""
    parts = urlsplit(address)
    token = parts.query.removeprefix("token=")
    connection = http.client.HTTPConnection(parts.netloc, timeout=40)
    try:
        connection.request(method, path, headers={"authorization": f"Bearer {token}"} if headers is None else headers)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def processes_of(server: Server) -> list[psutil.Process]:
    return [one for one in psutil.Process(server.process.pid).children() if "lampyr.console" in one.cmdline()]


def test_the_console_is_on_loopback_at_a_port_of_its_own(server: Server, address: str) -> None:
    parts = urlsplit(address)
    assert parts.hostname == "127.0.0.1" and parts.port not in (None, server.port)
    listening = {
        one.laddr for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == parts.port
    }
    assert {one.ip for one in listening} == {"127.0.0.1"}
    assert server.get("/metrics").status == 404


def test_a_log_has_no_token_and_says_how_to_get_it(server: Server, address: str) -> None:
    port, token = urlsplit(address).port, address.partition("token=")[2]
    server.log(rf"^lampyr: console http://127\.0\.0\.1:{port}/ \(`lampyr console` prints it with its token\)$")
    ask(address, f"/?token={token}", {})
    ask(address, "/?token=wrong", {})
    assert token not in "\n".join([*server.lines, server.ready_line])
    for one in server.processes():
        assert token not in " ".join(one.cmdline())
    path = server.root / ".lampyr/console.token"
    assert path.read_text().strip() == token and stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_browser_opens_it_once_and_has_a_cookie(server: Server, address: str) -> None:
    parts = urlsplit(address)
    opened = ask(address, f"/?{parts.query}", {})
    assert (opened.status, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"].partition(";")[0]
    assert ask(address, "/", {}).status == 401
    assert ask(address, "/", {"cookie": cookie}).status == 200
    assert ask(address, "/", {"cookie": cookie, "host": f"rebound.example:{parts.port}"}).status == 403
    function_page = f"http://127.0.0.1:{server.port}"
    assert ask(address, "/", {"cookie": cookie, "origin": function_page}).status == 403


def test_no_function_sees_the_cookie(server: Server, address: str) -> None:
    """A browser sends the cookies of a host to all its ports."""
    cookie = ask(address, f"/?{urlsplit(address).query}", {}).headers["set-cookie"].partition(";")[0]
    for sent, kept in (
        (f"a=1; {cookie}; b=2", "a=1; b=2"),
        (f"{cookie}; b=2", "b=2"),
        (f"a=1;{cookie}", "a=1"),
        (f"{cookie};{cookie}", None),
    ):
        assert server.get("/cookies", cookie=sent).json()["header"] == kept
    assert server.get("/cookies", cookie=f"{cookie}; b=2").json()["cookies"] == {"b": "2"}
    with server.connect() as sock:
        sock.sendall(f"GET /cookies HTTP/1.1\r\nHost: x\r\ncookie: {cookie}\r\nCookie: b=2\r\n\r\n".encode())
        assert re.search(rb'"header":"b=2"', sock.recv(4096))


def test_the_process_exists_only_once_somebody_looks(server: Server, address: str) -> None:
    for one in processes_of(server):
        one.kill()
    until(lambda: not processes_of(server), "the end of the console process")
    assert server.get("/cookies").status == 200
    assert not processes_of(server)
    assert ask(address, "/api/functions").json()["functions"][0]["function"] == "/cookies"
    assert len(processes_of(server)) == 1


def test_it_answers_again_whatever_is_killed(server: Server, address: str) -> None:
    before = ask(address, "/api/functions").json()["functions"]
    for module in ("lampyr.control", "lampyr.console", "lampyr.gateway"):
        server.find(module).kill()
        after = ask(address, "/api/functions").json()["functions"]
        assert [one["function"] for one in after] == [one["function"] for one in before]
    assert command(server, "--json")["url"] == address


def test_the_api_says_what_commands_say(server: Server, address: str) -> None:
    assert server.get("/cookies").status == 200
    usage = ask(address, "/api/usage?by=day").json()
    assert usage["total"]["invocations"] >= 1 and "day" in usage["groups"][0]
    wrong = ask(address, "/api/usage?by=moon")
    assert (wrong.status, wrong.json()["error"]["code"]) == (400, "BAD_REQUEST")
    described = ask(address, "/api/openapi.json").json()
    assert set(described["paths"]) >= {"/api/functions", "/api/usage"}


def test_other_processes_may_not_read_the_memory_that_holds_the_token(server: Server, address: str) -> None:
    ask(address, "/")
    (console,) = processes_of(server)
    # /proc/PID belongs to root where a process is not dumpable (proc(5)).
    assert os.stat(f"/proc/{console.pid}/mem").st_uid == 0


def test_a_port_of_the_settings_and_the_token_of_the_state_outlive_a_restart(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    files = {**PROJECT, "lampyr.toml": f"[server]\nconsole_port = {port}\n"}
    first = serve(files, "--json")
    address = json.loads(first.ready_line)["console"]
    assert urlsplit(address).port == port
    assert ask(address, "/").status == 200
    cookie = ask(address, f"/?{urlsplit(address).query}", {}).headers["set-cookie"].partition(";")[0]
    first.stop()
    again = serve(files, "--json", "--state-dir", str(first.root / ".lampyr"))
    assert json.loads(again.ready_line)["console"] == address
    assert ask(address, "/", {"cookie": cookie}).status == 200
