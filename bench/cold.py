"""Cold starts of functions that import heavy packages, through the gateway, beside `python -c "import ..."`.

Of processes that are forked for the request, and of those that were forked ahead (node/parking.py).
"""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import time

import servers

PACKAGES = ("openai", "anthropic", "fastapi", "numpy", "pandas")
IMPORTS = 5
# How many starts, and how long after one another. idle_timeout is 20 ms: the instance of the call before has left. A
# process is parked where nothing has run for 100 ms.
WAYS = {"forked": (200, 0.06), "parked": (100, 0.45)}


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


def _measure(connection: http.client.HTTPConnection, package: str, way: str) -> None:
    """Cold starts, and plain imports in between."""
    count, away_s = WAYS[way]
    path = f"/api/{package}"
    starts, warm, imports = [], 0, []
    for _ in range(4):  # until its snapshot is there and has forked, and another start is expected
        _post(connection, path)
        time.sleep(away_s)
    for number in range(count):
        if number % (count // IMPORTS) == 0:
            imports.append(_import_ms(package))
        time.sleep(away_s)
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
    print(f"{way} {package:9} p50 {p50:5.2f} ms, p99 {p99:5.2f} ms; {ratio} ({seen})", flush=True)


def main() -> None:
    print(f"\ncold starts through the gateway, beside {IMPORTS} plain imports")
    with servers.lampyr() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for way in WAYS:
            for package in PACKAGES:
                _measure(connection, package, way)


if __name__ == "__main__":
    main()
