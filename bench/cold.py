"""Cold starts of functions that import heavy packages, through the gateway, beside `python -c "import ..."`."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import time

import servers

PACKAGES = ("openai", "anthropic", "fastapi", "numpy", "pandas")
STARTS, IMPORTS = 200, 5
# idle_timeout is 20 ms: the instance of the call before has left.
AWAY_S = 0.06


def _post(connection: http.client.HTTPConnection, path: str) -> tuple[float, str]:
    started = time.perf_counter()
    connection.request("POST", path, '{"prompt": "hi"}', {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise RuntimeError(f"{path} answered {response.status}")
    return (time.perf_counter() - started) * 1000, response.headers["server-timing"]


def _import_ms(package: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {package}"], check=True)
    return (time.perf_counter() - started) * 1000


def _measure(connection: http.client.HTTPConnection, package: str) -> None:
    """Cold starts, and plain imports in between."""
    path = f"/api/{package}"
    starts, warm, imports = [], 0, []
    for _ in range(2):  # until its snapshot is there and has forked once
        _post(connection, path)
        time.sleep(AWAY_S)
    for number in range(STARTS):
        if number % (STARTS // IMPORTS) == 0:
            imports.append(_import_ms(package))
        time.sleep(AWAY_S)
        took_ms, timing = _post(connection, path)
        if "desc=cold" in timing:
            starts.append(took_ms)
        else:
            warm += 1
    starts.sort()
    p50, p99 = statistics.median(starts), starts[int(len(starts) * 0.99) - 1]
    plain = statistics.median(imports)
    seen = f"{len(starts)} starts" + (f", {warm} more were warm" if warm else "")
    ratio = f"python -c 'import {package}' {plain:.0f} ms: {plain / p50:.0f} times longer"
    print(f"{package:9} p50 {p50:5.1f} ms, p99 {p99:5.1f} ms; {ratio} ({seen})", flush=True)


def main() -> None:
    print(f"\ncold starts through the gateway, {STARTS} of each function, beside {IMPORTS} plain imports")
    with servers.lampyr() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for package in PACKAGES:
            _measure(connection, package)
