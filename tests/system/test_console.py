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
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from provider import Fake
from serving import Answer, Serve, Server, command_lines, running, started_for, until

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
    return list(started_for("lampyr.console", psutil.Process(server.process.pid).children()))


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
    assert token not in command_lines(server.processes())
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


def test_who_connects_and_says_nothing_is_let_go(server: Server, address: str) -> None:
    """A function may knock as well, and should keep nobody out."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), 40) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        assert sock.recv(100) == b""
    assert ask(address, "/").status == 200


def test_it_answers_again_whatever_is_killed(server: Server, address: str) -> None:
    before = ask(address, "/api/functions").json()["functions"]
    for module in ("lampyr.control", "lampyr.console", "lampyr.gateway"):
        server.find(module).kill()
        after = ask(address, "/api/functions").json()["functions"]
        assert [one["function"] for one in after] == [one["function"] for one in before]
    assert command(server, "--json")["url"] == address


def test_one_that_cannot_start_is_tried_ever_more_rarely_and_told_once(serve: Serve, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "uvicorn.py"
    broken.parent.mkdir()
    broken.write_text('raise ImportError("as asked")\n')
    path = os.pathsep.join(filter(None, [str(broken.parent), os.environ.get("PYTHONPATH")]))
    server = serve(PROJECT, env={"PYTHONPATH": path})
    parts = urlsplit(command(server, "--json")["url"])
    with socket.create_connection((parts.hostname, parts.port), 60) as caller:
        server.log("lampyr: error: the console cannot start: its process ended at once .exit 1")
        assert server.get("/cookies").status == 200
        time.sleep(8)  # a try each second would be ten of them by now
        assert tries(server) <= 4
        until(lambda: tries(server) >= 3, "another try")
        assert sum("cannot start" in line for line in server.lines) == 1
        broken.unlink()
        caller.settimeout(60)
        caller.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert caller.recv(100).startswith(b"HTTP/1.1 4")  # whoever waited is answered: it has no token


def tries(server: Server) -> int:
    return sum("ImportError: as asked" in line for line in server.lines)


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


FIGURES = {
    "app/quick/route.py": """
        rate_limit = "2/hour"

        def GET(req):
            return {"quick": True}

        def POST(req):
            if req.query.get("fail"):
                raise ValueError("as asked")
            return "x" * 1000
    """,
    "app/edge/[id]/route.py": """
        runtime = "edge"
        rate_limit = "none"

        async def GET(req):
            return "edge"
    """,
}


def scraped(address: str) -> dict[str, dict[str, float]]:
    """What Prometheus' parser reads: by name and labels."""
    answer = ask(address, "/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for one in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()) if name != "runtime")
            found.setdefault(one.name, {})[labels] = one.value
    return found


def test_a_function_whose_provider_has_no_key_is_not_said_to_be_brokered(serve: Serve) -> None:
    settings = '[providers.lamps]\nbase_url = "https://lamps.invalid/v1"\nsecret = "LAMPS_KEY"\n'
    server = serve({"app/one/route.py": "def GET(): return 'one'\n", "lampyr.toml": settings})
    page = ask(command(server, "--json")["url"], "/functions/one").body.decode()
    assert "SECURE" in page and "no key" in page and "there is no LAMPS_KEY" in page, page


def test_tokens_and_cost_are_in_the_metrics(serve: Serve) -> None:
    route = """
        from openai import OpenAI
        client = OpenAI()

        def GET(req):
            asked = [{"role": "user", "content": "Hello"}]
            return client.chat.completions.create(model="small", messages=asked).choices[0].message.content
    """
    with Fake() as fake:
        settings = f'[providers.openai]\nbase_url = "{fake.url}/v1"\n[prices.small]\ninput = 10\noutput = 20\n'
        files = {
            "app/ask/route.py": route,
            "lampyr.toml": settings,
            ".env.local": "OPENAI_API_KEY=sk-canary-41d7a90c\n",
        }
        server = serve(files, "--json")
        address = json.loads(server.ready_line)["console"]
        assert server.get("/ask").status == 200
        until(lambda: scraped(address).get("lampyr_provider_calls_total"), "the call")
        found = scraped(address)
        assert found["lampyr_provider_calls_total"] == {"function=/ask,provider=openai": 1}
        assert found["lampyr_tokens_total"] == {
            "direction=in,function=/ask,provider=openai": 7,
            "direction=out,function=/ask,provider=openai": 3,
        }
        assert found["lampyr_cost_dollars_total"]["function=/ask,provider=openai"] == pytest.approx(130 / 1e6)
        assert b"canary" not in ask(address, "/metrics").body


def test_instances_over_time_outlive_the_gateway_and_the_server(serve: Serve) -> None:
    wait = """
        import asyncio, pathlib
        rate_limit = "none"

        async def GET():
            print("waits", flush=True)
            while not (pathlib.Path(__file__).parents[1] / "go").exists():
                await asyncio.sleep(0.01)
            return "here"
    """
    server = serve({"app/wait/route.py": wait}, "--json")
    address = json.loads(server.ready_line)["console"]

    def most(address: str) -> int:
        return max(ask(address, "/api/series?window=15m&function=/wait").json()["instances"])

    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(server.get, "/wait") for _ in range(4)]
        until(lambda: sum(line.endswith("| waits") for line in server.lines) == 4, "four instances")
        (server.live / "app/go").touch()
        assert {one.result().status for one in asked} == {200}
    until(lambda: most(address) >= 4, "four")
    server.find("lampyr.gateway").kill()
    until(lambda: server.get("/wait").status == 200, "another gateway", context=server.lines)
    until(lambda: most(address) >= 4, "control to have read what the killed one has kept")
    assert re.search(r"\b[4-9] in the last 400 days", ask(address, "/functions/wait").body.decode())
    server.stop()
    again = serve(PROJECT, "--json", "--state-dir", str(server.root / ".lampyr"))
    assert most(json.loads(again.ready_line)["console"]) >= 4


def test_metrics_are_what_has_happened_and_survive_every_death(serve: Serve) -> None:
    server = serve(FIGURES, "--json")
    address = json.loads(server.ready_line)["console"]
    assert [server.request("POST", path).status for path in ("/quick", "/quick?fail=1", "/quick")] == [200, 500, 429]
    for _ in range(5):
        assert server.get("/edge/1").status == 200
    requests = {
        "function=/quick,outcome=ok,status=2xx": 1,
        "function=/quick,outcome=error,status=5xx": 1,
        "function=/quick,outcome=rate_limited,status=4xx": 1,
        "function=/edge/[id],outcome=ok,status=2xx": 5,
    }
    until(lambda: scraped(address).get("lampyr_requests_total") == requests, "the ledger's half second")
    found = scraped(address)
    assert found["lampyr_errors_total"] == {
        "code=FUNCTION_INVOCATION_FAILED,function=/quick": 1,
        "code=RATE_LIMITED,function=/quick": 1,
    }
    assert found["lampyr_throttles_total"] == {"function=/quick,reason=rate_limit": 1}
    assert found["lampyr_duration_seconds_count"] == {"function=/quick": 2, "function=/edge/[id]": 5}
    assert (
        found["lampyr_cold_starts_total"]["function=/edge/[id]"]
        == found["lampyr_init_seconds_count"]["function=/edge/[id]"]
    )
    assert found["lampyr_sent_bytes_total"]["function=/quick"] > 1000
    assert found["lampyr_cpu_seconds_total"]["function=/edge/[id]"] > 0
    assert sum(count for labels, count in found["lampyr_instances"].items() if "/edge" in labels) >= 1
    assert found["lampyr_snapshot_ready"] == {"function=/quick": 1, "function=/edge/[id]": 1}
    assert found["lampyr_snapshot_memory_bytes"]["function=/quick"] > 0
    for module in ("lampyr.control", "lampyr.console", "lampyr.gateway"):
        server.find(module).kill()
        assert scraped(address)["lampyr_requests_total"] == requests
    server.stop()
    again = serve(FIGURES, "--json", "--state-dir", str(server.root / ".lampyr"))
    assert scraped(json.loads(again.ready_line)["console"])["lampyr_requests_total"] == requests
