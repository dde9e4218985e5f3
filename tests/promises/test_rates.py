"""SPEC 2 `rate_limit`: how much one client may ask of one function."""

from __future__ import annotations

import http.client
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import Answer, Serve, Server, running, until

ROUTE = """
def GET():
    return "read"

PUT = POST = DELETE = PATCH = GET
"""
PROJECT = {
    "app/usual/route.py": ROUTE,
    "app/other/route.py": ROUTE,
    "app/few/route.py": 'rate_limit = "3/hour"' + ROUTE,
    "app/own/route.py": 'rate_limit = "3/hour"' + ROUTE,
    "app/none/route.py": 'rate_limit = "none"' + ROUTE,
    "app/keys/route.py": 'rate_limit = "2/hour by header X-Api-Key"' + ROUTE,
    "app/session/route.py": 'rate_limit = "2/hour by cookie session"' + ROUTE,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("rates"), PROJECT) as server:
        yield server


def statuses(server: Server, count: int, method: str, path: str, **headers: str) -> list[int]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return [server.request(method, path, headers=named).status for _ in range(count)]


def test_60_a_minute_for_each_client_and_function_on_writing_methods(server: Server) -> None:
    assert statuses(server, 15, "POST", "/usual") == [200] * 15
    for method in ("PUT", "PATCH", "DELETE"):
        assert statuses(server, 15, method, "/usual") == [200] * 15
    until(lambda: server.request("POST", "/usual").error == "RATE_LIMITED", "a refusal")  # one comes back each second
    assert statuses(server, 70, "GET", "/usual") == [200] * 70
    assert statuses(server, 5, "HEAD", "/usual") + statuses(server, 5, "OPTIONS", "/usual") == [200] * 5 + [204] * 5
    assert server.request("POST", "/other").status == 200


def test_a_limit_of_its_own_is_for_every_method_but_options(server: Server) -> None:
    assert statuses(server, 4, "GET", "/own") == [200, 200, 200, 429]
    assert statuses(server, 1, "POST", "/own") == [429]
    assert statuses(server, 5, "OPTIONS", "/own") == [204] * 5


def test_none_turns_it_off(server: Server) -> None:
    assert statuses(server, 70, "POST", "/none") == [200] * 70


def refused(server: Server, **headers: str) -> Answer:
    for _ in range(5):
        answer = server.get("/few", **headers)
        if answer.status == 429:
            return answer
    raise AssertionError("it was never refused")


def test_a_refusal_says_when_to_come_back(server: Server) -> None:
    time.sleep(0.2)  # a terminal is shown 50 requests at a time, and it may have had those of the tests before
    answer = refused(server)
    error = answer.json()["error"]
    assert error["message"] == "This function takes 3 requests per hour from one client."
    assert (answer.error, error["code"], error["id"]) == ("RATE_LIMITED", "RATE_LIMITED", answer.headers["x-lampyr-id"])
    assert 1 <= int(answer.headers["retry-after"]) <= 1200
    assert answer.headers["ratelimit-policy"] == '"client";q=3;w=3600'
    assert answer.headers["ratelimit"] == f'"client";r=0;t={answer.headers["retry-after"]}'
    server.log(rf"GET /few 429 rate_limited .* {error['id']}")


def test_what_is_let_in_has_the_functions_own_headers(server: Server) -> None:
    answer = server.get("/keys", X_Api_Key="dora")
    assert answer.status == 200 and not {"ratelimit", "ratelimit-policy", "retry-after"} & answer.headers.keys()


def test_a_forwarded_address_that_nobody_vouches_for_changes_nothing(server: Server) -> None:
    refused(server)
    assert statuses(server, 3, "GET", "/few", X_Forwarded_For="203.0.113.1", Forwarded="for=203.0.113.1") == [429] * 3


def test_behind_a_trusted_proxy_each_of_its_clients_has_its_own(serve: Serve) -> None:
    server = serve({**PROJECT, "lampyr.toml": '[server]\ntrusted_proxies = ["127.0.0.1"]\n'})
    assert statuses(server, 4, "GET", "/few", X_Forwarded_For="203.0.113.1") == [200, 200, 200, 429]
    assert statuses(server, 4, "GET", "/few", X_Forwarded_For="203.0.113.2") == [200, 200, 200, 429]
    # What a client puts in front of what the proxy adds is its own invention.
    assert statuses(server, 2, "GET", "/few", X_Forwarded_For="198.51.100.9, 203.0.113.2") == [429] * 2


def test_a_refused_request_starts_no_instance(serve: Serve) -> None:
    server = serve({"app/once/route.py": 'rate_limit = "1/hour"\nidle_timeout = 0\n\ndef GET():\n    return "here"\n'})
    assert server.get("/once").status == 200
    before = {one.pid for one in server.processes()}
    assert statuses(server, 20, "GET", "/once") == [429] * 20
    assert {one.pid for one in server.processes()} <= before


def test_a_new_deployment_forgets_no_client(serve: Serve) -> None:
    server = serve(PROJECT, command="dev")
    assert statuses(server, 4, "GET", "/few") == [200, 200, 200, 429]
    server.write("app/few/route.py", PROJECT["app/few/route.py"] + "CHANGED = True\n")
    assert statuses(server, 2, "GET", "/few") == [429] * 2


def test_clients_can_be_told_apart_by_a_header(server: Server) -> None:
    for key in ("anna", "ben", "x" * 20_000):
        assert statuses(server, 3, "GET", "/keys", X_Api_Key=key) == [200, 200, 429]
    assert statuses(server, 1, "GET", "/keys", x_api_key="anna", Cookie="X-Api-Key=carl") == [429]
    # Who has none is told apart by address, and so is who has an empty one.
    assert statuses(server, 3, "GET", "/keys") + statuses(server, 1, "GET", "/keys", X_Api_Key="") == [
        200,
        200,
        429,
        429,
    ]


def test_clients_can_be_told_apart_by_a_cookie(server: Server) -> None:
    assert statuses(server, 3, "GET", "/session", Cookie="theme=dark; session=anna") == [200, 200, 429]
    assert statuses(server, 1, "GET", "/session", Cookie="session=anna; theme=light") == [429]
    assert statuses(server, 3, "GET", "/session", Cookie="session=ben") == [200, 200, 429]
    assert statuses(server, 3, "GET", "/session", Cookie="xsession=carl", session="dora") == [200, 200, 429]


@pytest.mark.alone
def test_a_refusal_is_quick_and_costs_little(server: Server) -> None:
    """What the figures are, `bench refused` says; a start of an instance for each would break these bounds."""
    refused(server)
    gateway = server.find("lampyr.gateway")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    times_ms, before = [], sum(gateway.cpu_times()[:2])
    for _ in range(500):
        began_s = time.monotonic()
        connection.request("GET", "/few")
        answer = connection.getresponse()
        answer.read()
        times_ms.append((time.monotonic() - began_s) * 1000)
        assert answer.status == 429
    connection.close()
    assert statistics.median(times_ms) < 100
    assert (sum(gateway.cpu_times()[:2]) - before) / 500 < 0.003


def test_invocations_of_all_functions_together_have_a_cap(serve: Serve) -> None:
    wait = """
        import asyncio, pathlib
        runtime = "edge"
        rate_limit = "none"

        async def GET(req):
            while "wait" in req.query and not (pathlib.Path(__file__).parents[1] / "go").exists():
                await asyncio.sleep(0.01)
            return "here"
    """
    files = {"app/a/route.py": wait, "app/b/route.py": wait, "lampyr.toml": "[server]\nmax_concurrency = 6\n"}
    server = serve(files)
    assert server.get("/a").status == server.get("/b").status == 200
    with ThreadPoolExecutor(12) as clients:
        asked = [clients.submit(server.get, f"/{'ab'[number % 2]}?wait") for number in range(12)]
        until(lambda: sum(one.done() for one in asked) == 6, "six refusals")
        (server.live / "app/go").touch()
        answers = [one.result() for one in asked]
    (server.live / "app/go").unlink()
    assert Counter(answer.status for answer in answers) == {200: 6, 503: 6}
    answer = next(answer for answer in answers if answer.status == 503)
    assert (answer.error, answer.headers["retry-after"]) == ("FUNCTION_THROTTLED", "1")
    assert answer.json()["error"]["message"] == "The server runs 6 invocations at once, and no more."
    # Whoever leaves, fails or is ended makes room again.
    for _ in range(8):
        with server.connect() as sock:
            sock.sendall(b"GET /a?wait HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.05)  # it has been let in, where there is room
    until(lambda: server.get("/b").status == 200, "room")
    assert server.get("/nothing").status == 404
