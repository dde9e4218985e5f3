"""Calls to a provider through the broker, beside the same without it: whole answers, and a stream's first token."""

from __future__ import annotations

import json
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import servers

ROUNDS = 3
CALLS = 400
ANSWER = {"choices": [{"message": {"content": "Hello"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
EVENTS = b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\n' * 3 + b"data: [DONE]\n\n"
# One connection each, in turns, from the same process: what differs is the broker.
FUNCTION = """
import http.client, json, os, time
from urllib.parse import urlsplit
max_duration = 120
def POST(req):
    url = urlsplit(os.environ["OPENAI_BASE_URL"])
    ways = {{"direct": ("{provider}", "/v1/chat/completions"), "broker": (url.netloc, url.path + "/chat/completions")}}
    lines = {{name: http.client.HTTPConnection(where) for name, (where, _) in ways.items()}}
    headers = {{"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}}
    took_ms = {{}}
    for _ in range({calls}):
        for stream in (False, True):
            for name, (_, path) in ways.items():
                asked = {{"model": "m", "stream": stream, "messages": [{{"role": "user", "content": "Hello"}}]}}
                begun = time.perf_counter()
                lines[name].request("POST", path, json.dumps(asked), headers)
                answer = lines[name].getresponse()
                answer.read1(1) if stream else answer.read()
                took_ms.setdefault(f"{{name}} {{stream}}", []).append((time.perf_counter() - begun) * 1000)
                answer.read()
    return {{name: [sorted(one)[len(one) * at // 100] for at in (50, 99)] for name, one in took_ms.items()}}
"""


class Provider(BaseHTTPRequestHandler):
    """Answers at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        stream = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream")
        body, kind = (EVENTS, "text/event-stream") if stream else (json.dumps(ANSWER).encode(), "application/json")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def provider() -> Iterator[str]:
    """A provider on loopback; where it is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def main() -> None:
    print(f"\nthe broker, {CALLS} calls each way in turns, {ROUNDS} rounds")
    print(f"{'':16} {'direct p50':>11} {'broker p50':>11} {'more':>7} {'direct p99':>11} {'broker p99':>11}   ms")
    with provider() as where, tempfile.TemporaryDirectory() as name:
        root = Path(name)
        route = root / "app/calls/route.py"
        route.parent.mkdir(parents=True)
        route.write_text(FUNCTION.format(provider=where, calls=CALLS))
        settings = f'[functions]\nrate_limit = "none"\n[providers.openai]\nbase_url = "http://{where}/v1"\n'
        (root / "lampyr.toml").write_text(settings)
        (root / ".env.local").write_text("OPENAI_API_KEY=sk-bench-of-the-broker\n")
        with servers.lampyr(root) as server:
            for _ in range(ROUNDS):
                _measure(server)


def _measure(server: servers.Server) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/calls", b"", method="POST")
    with urllib.request.urlopen(request, timeout=120) as answer:
        found = json.load(answer)
    for what, stream in (("whole answer", False), ("first token", True)):
        (direct, direct_99), (broker, broker_99) = found[f"direct {stream}"], found[f"broker {stream}"]
        more = broker - direct
        print(f"{what:16} {direct:11.2f} {broker:11.2f} {more:7.2f} {direct_99:11.2f} {broker_99:11.2f}")
