"""SPEC 2 `budget` and [budget]: refused at admission once spent, exactly, and whatever is killed or started again."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from serving import Serve, Server, until

FREE = """
rate_limit = "none"


def GET():
    return "here"
"""
BURN = (
    'budget = "0.2 CPU seconds/month"\n'
    + """
import time
rate_limit = "none"


def GET():
    start = time.thread_time()
    while time.thread_time() - start < 0.15:
        pass
"""
)


def statuses(server: Server, path: str, count: int) -> Counter[int]:
    with ThreadPoolExecutor(16) as clients:
        return Counter(clients.map(lambda _: server.get(path).status, range(count)))


def test_exactly_as_many_as_the_budget_has_however_many_ask_at_once(serve: Serve) -> None:
    server = serve({"app/a/route.py": 'budget = "50 invocations/month"\n' + FREE, "app/b/route.py": FREE})
    assert statuses(server, "/a", 120) == {200: 50, 429: 70}
    answer = server.get("/a")
    assert answer.error == "BUDGET_EXCEEDED" and 0 < int(answer.headers["retry-after"]) <= 31 * 86400
    assert answer.json()["error"]["message"] == "The budget of this function, 50 invocations/month, is spent."
    assert server.get("/b").status == 200
    for percent in (50, 80, 100):
        server.log(rf"lampyr: the budget of /a, 50 invocations/month, is used to {percent}%")


def test_what_is_used_survives_the_gateway_and_the_server(serve: Serve) -> None:
    server = serve({"app/a/route.py": 'budget = "30 invocations/month"\n' + FREE})
    assert statuses(server, "/a", 10) == {200: 10}
    gateway = server.find("lampyr.gateway")
    gateway.kill()
    until(lambda: not gateway.is_running() or gateway.status() == "zombie", "its end")
    assert statuses(server, "/a", 10) == {200: 10}
    server.stop()
    again = Server(server.root, "start")
    try:
        assert statuses(again, "/a", 15) == {200: 10, 429: 5}
    finally:
        again.stop()


def test_a_budget_of_the_project_is_for_all_functions_together(serve: Serve) -> None:
    toml = '[budget]\nlimit = ["20 invocations/month", "1 USD/day"]\n'
    server = serve({"app/a/route.py": FREE, "app/b/route.py": FREE, "lampyr.toml": toml})
    assert statuses(server, "/a", 15) == {200: 15}
    assert statuses(server, "/b", 15) == {200: 5, 429: 10}
    assert server.get("/a").error == "BUDGET_EXCEEDED"


def test_a_budget_of_cpu_time(serve: Serve) -> None:
    server = serve({"app/a/route.py": BURN.replace("        pass\n", "        pass\n    return 'burnt'\n")})
    assert [server.get("/a").status for _ in range(4)] == [200, 200, 429, 429]


def test_a_refusal_starts_no_instance(serve: Serve) -> None:
    server = serve({"app/a/route.py": 'budget = "1 invocations/month"\nidle_timeout = 0\n' + FREE})
    assert server.get("/a").status == 200
    before = {one.pid for one in server.processes()}
    assert statuses(server, "/a", 20) == {429: 20}
    assert {one.pid for one in server.processes()} <= before
