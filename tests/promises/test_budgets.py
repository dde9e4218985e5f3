"""SPEC 2 `budget` and [budget]: refused at admission once spent, exactly, and whatever is killed or started again."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import Serve, Server, ended, until

from lampyr import config
from lampyr.errors import ConfigError

FREE = """
rate_limit = "none"


def GET():
    return "here"
"""
BURN = (
    'budget = "0.5 CPU seconds/month"\n'
    + """
import time
rate_limit = "none"


def GET():
    start = time.thread_time()
    while time.thread_time() - start < 0.3:
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
        word = "" if percent == 50 else "warning: "
        server.log(rf"lampyr: {word}the budget of /a, 50 invocations/month, is used to {percent}%")


def test_what_is_used_survives_the_gateway_and_the_server(serve: Serve) -> None:
    server = serve({"app/a/route.py": 'budget = "30 invocations/month"\n' + FREE})
    assert statuses(server, "/a", 10) == {200: 10}
    gateway = server.find("lampyr.gateway")
    gateway.kill()
    until(lambda: ended(gateway), "its end")
    assert statuses(server, "/a", 10) == {200: 10}
    server.stop()
    again = Server(server.root, "start")
    try:
        assert statuses(again, "/a", 15) == {200: 10, 429: 5}
    finally:
        again.stop()


def test_a_budget_of_the_project_is_for_all_functions_together(serve: Serve) -> None:
    toml = '[budget]\nlimit = ["20 invocations/month", "1 USD/month"]\n'
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


LINE = r"lampyr: (?:warning: )?the budget of /a, 20 invocations/month, is used to (\d+)%"


def said(*servers: Server) -> list[int]:
    return [int(percent) for server in servers for percent in re.findall(LINE, "\n".join(server.lines))]


def test_a_mark_is_said_once_whoever_dies(serve: Serve) -> None:
    server = serve({"app/a/route.py": 'budget = "20 invocations/month"\n' + FREE})
    assert statuses(server, "/a", 12) == {200: 12}
    server.log(LINE.replace(r"(\d+)", "50"))
    for module in ("lampyr.control", "lampyr.gateway"):
        process = server.find(module)
        process.kill()
        until(lambda process=process: ended(process), "its end")
    assert statuses(server, "/a", 4) == {200: 4}
    server.log(LINE.replace(r"(\d+)", "80"))
    server.stop()
    again = Server(server.root, "start")
    try:
        assert statuses(again, "/a", 6) == {200: 4, 429: 2}
        again.log(LINE.replace(r"(\d+)", "100"))
        time.sleep(1.2)  # a mark said once more would come within a second
    finally:
        again.stop()
    assert said(server, again) == [50, 80, 100]


class Hook(BaseHTTPRequestHandler):
    """Takes webhooks; `answers` are the next statuses, 200 when they are used up. Answers once it `may`."""

    answers: list[int]
    taken: list[tuple[int, dict[str, Any]]]
    may: threading.Event

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = self.answers.pop(0) if self.answers else 200
        self.taken.append((status, event))
        self.may.wait(60)
        self.send_response(status)
        self.send_header("location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hook(
    answers: list[int], may: threading.Event | None = None
) -> Iterator[tuple[str, list[tuple[int, dict[str, Any]]]]]:
    taken: list[tuple[int, dict[str, Any]]] = []
    if may is None:
        may = threading.Event()
        may.set()
    handler = type("Handler", (Hook,), {"answers": answers, "taken": taken, "may": may})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hooks/a-path-that-is-a-credential", taken
    server.shutdown()
    server.server_close()


def test_a_webhook_is_told_and_again_where_it_fails(serve: Serve) -> None:
    with hook([500]) as (url, taken):
        files = {
            "app/hush-hush-hush/route.py": 'budget = "10 invocations/month"\n' + FREE,
            ".env.local": "ROUTE_SECRET=hush-hush-hush\n",
            "lampyr.toml": f'[budget]\nwebhook = "{url}"\n',
        }
        server = serve(files)
        assert statuses(server, "/hush-hush-hush", 8) == {200: 8}
        until(lambda: len(taken) >= 3, "two marks, the first of them twice", context=server.lines)
        assert [(status, event["percent"]) for status, event in taken] == [(500, 50), (200, 50), (200, 80)]
        event = taken[-1][1]
        assert event["function"] == "/***" and "hush" not in json.dumps(event)
        figures = (event["event"], event["budget"], event["used"], event["amount"], event["unit"])
        assert figures == ("budget", "10 invocations/month", 8, 10, "invocations")
        assert event["period_begins"] < event["period_ends"]
        assert "credential" not in "\n".join(server.lines)


def test_a_webhook_that_hangs_or_leads_elsewhere_holds_nobody_up(serve: Serve) -> None:
    may = threading.Event()
    with hook([302], may) as (url, taken):
        toml = f'[budget]\nlimit = "10 invocations/month"\nwebhook = "{url}"\n'
        server = serve({"app/a/route.py": FREE, "lampyr.toml": toml})
        assert statuses(server, "/a", 20) == {200: 10, 429: 10}
        for percent in (50, 80, 100):
            server.log(rf"the budget of the project, 10 invocations/month, is used to {percent}%")
        may.set()
        server.log(r"error: the webhook at 127\.0\.0\.1 was not told: it answers with status 302")
        until(lambda: [event["percent"] for _, event in taken] == [50, 80, 100], "all of them")
        assert taken[0][1]["function"] is None and "credential" not in "\n".join(server.lines)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x", "https://user:key@example.com/", "no"])
def test_only_http_and_https_are_told(tmp_path: Path, url: str) -> None:
    (tmp_path / "lampyr.toml").write_text(f'[budget]\nwebhook = "{url}"\n')
    with pytest.raises(ConfigError, match=r"webhook .* is not allowed"):
        config.load(tmp_path)
