"""Warm JSON POST: requests per second and CPU per request at several numbers of connections (wrk)."""

from __future__ import annotations

import shutil
import statistics
import tempfile

import servers

ROUNDS, SECONDS = 5, 3
SCRIPT = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"prompt": "Why is the sky blue?"}'
"""
CASES = (("standard", "/api/echo"), ("edge", "/api/edge"))


def measure(server: servers.Server, path: str, connections: int) -> tuple[float, float]:
    """Requests per second, and microseconds of CPU per request over the whole process tree."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        before = server.cpu_s()
        out = servers.wrk(server, path, connections, SECONDS, "-s", script.name)
        after = server.cpu_s()
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{server.name} {path} did not answer properly:\n{out}")
    requests = int(servers.figure(r"(\d+) requests in", out))
    rate = float(servers.figure(r"Requests/sec:\s+([\d.]+)", out))
    return rate, (after - before) / requests * 1e6


def main() -> None:
    if shutil.which("wrk") is None:
        print("warm: skipped, wrk is not installed (apt-get install wrk)")
        return
    print(f"\nwarm JSON POST, server on one core, median of {ROUNDS} interleaved rounds of {SECONDS} s")
    print(f"{'':10} {'conns':>6} {'lampyr/s':>10} {'uvicorn/s':>10} {'ratio':>6} {'us cpu':>8} {'us cpu uv':>10}")
    with servers.lampyr() as ours, servers.uvicorn() as theirs:
        for connections in (1, 16, 64):
            for name, path in CASES:
                measure(ours, path, connections)
                rows = [
                    (measure(ours, path, connections), measure(theirs, "/api/echo", connections)) for _ in range(ROUNDS)
                ]
                rate = statistics.median(our[0] for our, _ in rows)
                their_rate = statistics.median(their[0] for _, their in rows)
                ratio = statistics.median(our[0] / their[0] for our, their in rows)
                cpu = statistics.median(our[1] for our, _ in rows)
                their_cpu = statistics.median(their[1] for _, their in rows)
                figures = f"{rate:10.0f} {their_rate:10.0f} {ratio:5.2f}x {cpu:8.1f} {their_cpu:10.1f}"
                print(f"{name:10} {connections:6} {figures}", flush=True)
