"""200 requests at once to a function that waits 1 s and has no instance, and what another function notices of it."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import threading
import time
from collections import Counter

import servers
import uvloop

REQUESTS, ROUNDS = 200, 5
QUIET_S, PAUSE_S = 4.0, 0.002
# After a burst, until its instances (idle_timeout is 2 s) have left.
AWAY_S = 5.0
ECHO = b"POST /api/echo HTTP/1.1\r\nHost: bench\r\nContent-Length: 16\r\n\r\n" + b'{"prompt": "hi"}'
WAIT = b"GET /api/wait HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


class Probe:
    """Asks another, warm function every 2 ms in a process of its own, which goes before the servers where it may.

    What is measured is then the server's delay and not that of the client.
    """

    def __init__(self, port: int) -> None:
        self._stop, theirs = socket.socketpair()
        results, self._results = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._stop.close()
            _write(self._results, b" ".join(b"%.4f" % ms for ms in _probe(port, theirs)))
            os._exit(0)
        os.close(self._results)
        theirs.close()
        self._pieces: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=(results,))
        self._reader.start()

    def _read(self, results: int) -> None:
        while piece := os.read(results, 65536):
            self._pieces.append(piece)
        os.close(results)

    def end(self) -> list[float]:
        """What each request took, in ms."""
        self._stop.close()
        self._reader.join()
        os.waitpid(self._pid, 0)
        return sorted(float(ms) for ms in b"".join(self._pieces).split())


def _write(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)


def _probe(port: int, stop: socket.socket) -> list[float]:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pass
    took_ms = []
    stop.settimeout(PAUSE_S)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while True:
            try:
                stop.recv(1)
                return took_ms
            except TimeoutError:
                began = time.perf_counter()
                connection.sendall(ECHO)
                connection.recv(65536)
                took_ms.append((time.perf_counter() - began) * 1000)


async def _one(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(WAIT)
    answer = await reader.read()
    writer.close()
    return int(answer.split(None, 2)[1])


async def _burst(port: int) -> tuple[float, Counter[int]]:
    began = time.perf_counter()
    statuses = await asyncio.gather(*(_one(port) for _ in range(REQUESTS)))
    return time.perf_counter() - began, Counter(statuses)


def _p99(took_ms: list[float]) -> float:
    return took_ms[int(len(took_ms) * 0.99)]


def _measure(port: int) -> tuple[float, Counter[int], list[float], list[float]]:
    quiet = Probe(port)
    time.sleep(QUIET_S)
    quiet_ms = quiet.end()
    busy = Probe(port)
    took_s, statuses = uvloop.run(_burst(port))
    return took_s, statuses, quiet_ms, busy.end()


def main() -> None:
    print(
        f"\n{REQUESTS} requests at once to a function that waits 1 s, up to 100 instances, from none; {ROUNDS} rounds"
    )
    ratios = []
    with servers.lampyr(cores=servers.ALL_CORES) as server:
        uvloop.run(_one(server.port))  # until its snapshot is there
        for _ in range(ROUNDS):
            time.sleep(AWAY_S)
            took_s, statuses, quiet_ms, busy_ms = _measure(server.port)
            ratios.append(_p99(busy_ms) / _p99(quiet_ms))
            said = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
            print(
                f"{said} in {took_s:.2f} s; another function: quiet p50 {statistics.median(quiet_ms):.2f} ms, "
                f"p99 {_p99(quiet_ms):.2f}; meanwhile p50 {statistics.median(busy_ms):.2f}, p99 {_p99(busy_ms):.2f}, "
                f"longest {busy_ms[-1]:.2f}",
                flush=True,
            )
    print(f"p99 meanwhile / quiet: median {statistics.median(ratios):.1f}", flush=True)
