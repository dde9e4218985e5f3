"""Cold start of a function that imports openai, through the gateway, beside `python -c "import openai"`."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import time

import servers

STARTS, IMPORTS = 200, 7


def _post(connection: http.client.HTTPConnection, path: str) -> tuple[float, str]:
    started = time.perf_counter()
    connection.request("POST", path, '{"prompt": "hi"}')
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise RuntimeError(f"{path} answered {response.status}")
    return (time.perf_counter() - started) * 1000, response.headers["server-timing"]


def main() -> None:
    print(f"\ncold start of a function that imports openai, {STARTS} starts, beside {IMPORTS} plain imports")
    starts, warm, imports = [], [], []
    with servers.lampyr() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        _post(connection, "/api/cold")  # until its snapshot is there
        each = STARTS // IMPORTS
        for number in range(STARTS):
            if number % each == 0 and len(imports) < IMPORTS:
                started = time.perf_counter()
                subprocess.run([sys.executable, "-c", "import openai"], check=True)
                imports.append((time.perf_counter() - started) * 1000)
            time.sleep(0.06)  # idle_timeout is 20 ms: the instance has left
            took_ms, timing = _post(connection, "/api/cold")
            (starts if "desc=cold" in timing else warm).append(took_ms)
    starts.sort()
    p50, p99 = statistics.median(starts), starts[int(len(starts) * 0.99) - 1]
    plain = statistics.median(imports)
    print(f"cold p50 {p50:.1f} ms, p99 {p99:.1f} ms over {len(starts)} cold starts ({len(warm)} were warm)")
    print(f"python -c 'import openai' {plain:.0f} ms: {plain / p50:.0f} times longer", flush=True)
