"""Requests that are not let in: CPU of all processes for each, with log and ledger, and how long it takes."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import servers

SECONDS = 4
FUNCTION = """
def GET():
    return "once"
"""
CASES = (
    ("rate limit", "/limited", 'rate_limit = "1/day"', []),
    ("by header", "/by-key", 'rate_limit = "1/day by header X-Api-Key"', ["-H", "X-Api-Key: one-and-the-same"]),
    ("budget", "/spent", 'rate_limit = "none"\nbudget = "1 invocations/month"', []),
)


def main() -> None:
    if shutil.which("wrk") is None:
        print("refused: skipped, wrk is not installed (apt-get install wrk)")
        return
    print(f"\nrefused requests, server on one core, {SECONDS} s each")
    print(f"{'':12} {'conns':>6} {'refused/s':>10} {'us cpu':>8} {'p50 ms':>8} {'p99 ms':>8}")
    with tempfile.TemporaryDirectory() as name:
        for _, path, settings, _ in CASES:
            route = Path(name) / f"app{path}/route.py"
            route.parent.mkdir(parents=True)
            route.write_text(settings + FUNCTION)
        with servers.lampyr(Path(name)) as server:
            for what, path, _, headers in CASES:
                for connections in (1, 16):
                    _measure(server, what, path, headers, connections)


def _measure(server: servers.Server, what: str, path: str, headers: list[str], connections: int) -> None:
    before = server.cpu_s()
    out = servers.wrk(server, path, connections, SECONDS, "--latency", *headers)
    cpu_s = server.cpu_s() - before
    requests = int(servers.figure(r"(\d+) requests in", out))
    refused = int(servers.figure(r"Non-2xx or 3xx responses: (\d+)", out))
    if requests - refused > 1:
        raise RuntimeError(f"{what}: {requests - refused} were let in:\n{out}")
    p50, p99 = (_ms(servers.figure(rf"^ +{part}%\s+(\S+)", out)) for part in (50, 99))
    print(
        f"{what:12} {connections:6} {requests / SECONDS:10.0f} {cpu_s / requests * 1e6:8.1f} {p50:8.2f} {p99:8.2f}",
        flush=True,
    )


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
