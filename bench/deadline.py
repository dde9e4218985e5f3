"""How late the 504 of a deadline is, and who is left 100 ms after it, for handlers that do not let go."""

from __future__ import annotations

import http.client
import tempfile
import time
from pathlib import Path

import psutil
import servers

ROUNDS = 20
LIMIT_S, LATER_S = 1.0, 0.1
HEAD = """
import asyncio, ctypes, os, signal, time
max_duration = 1
max_instances = 1


def three_deep():
    if os.fork() == 0:
        for _ in range(3):
            os.setsid()
            if os.fork():
                os._exit(0)
        while True:
            time.sleep(1)


def POST():
    return "fine"


async def GET():
"""
HANDLERS = {
    "waits": "await asyncio.sleep(30)",
    "busy loop": "while True: pass",
    "time.sleep": "time.sleep(30)",
    "C call with the GIL": "ctypes.PyDLL(None).sleep(30)",
    "swallows BaseException": """
    while True:
        try:
            await asyncio.sleep(30)
        except BaseException:
            pass
    """,
    "signals ignored": """
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    while True:
        time.sleep(1)
    """,
    "daemonised grandchild": """
    three_deep()
    time.sleep(30)
    """,
}


def _ask(port: int, method: str, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def _living(server: servers.Server) -> set[int]:
    return {one.pid for one in server.tree() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE}


def _round(server: servers.Server, path: str, resting: set[int]) -> tuple[float, int]:
    """How many ms after the limit the answer was there, and how many processes are left a little later."""
    _ask(server.port, "POST", path)
    began = time.perf_counter()
    status = _ask(server.port, "GET", path)
    late_ms = (time.perf_counter() - began - LIMIT_S) * 1000
    if status != 504:
        raise RuntimeError(f"{path} was answered {status}")
    time.sleep(LATER_S)
    return late_ms, len(_living(server) - resting)


def main() -> None:
    print(f"\n504 after max_duration = 1, late by; and processes that are left 100 ms after it; {ROUNDS} rounds each")
    with tempfile.TemporaryDirectory() as folder:
        for number, body in enumerate(HANDLERS.values()):
            file = Path(folder) / f"app/{number}/route.py"
            file.parent.mkdir(parents=True)
            file.write_text(f"{HEAD}    {body.strip()}\n")
        Path(folder).chmod(0o755)
        every: list[float] = []
        with servers.lampyr(Path(folder), servers.ALL_CORES) as server:
            resting = _living(server)
            for number, name in enumerate(HANDLERS):
                found = [_round(server, f"/{number}", resting) for _ in range(ROUNDS)]
                late_ms = sorted(late for late, _ in found)
                every += late_ms
                print(
                    f"{name:<24} p50 {late_ms[ROUNDS // 2]:5.1f} ms, p95 {late_ms[int(ROUNDS * 0.95)]:5.1f}, "
                    f"longest {late_ms[-1]:5.1f}; left: {max(left for _, left in found)}",
                    flush=True,
                )
        every.sort()
        print(f"all: p95 {every[int(len(every) * 0.95)]:.1f} ms", flush=True)
