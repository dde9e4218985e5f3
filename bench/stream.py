"""Concurrent streams: how far each chunk arrives from when it was due, and the CPU that a chunk costs."""

from __future__ import annotations

import asyncio
import statistics
import time

import servers
import uvloop

STREAMS, CHUNKS, PAUSE_S, ROUNDS = 100, 50, 0.02, 3


async def _one(port: int, late_ms: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/stream?n=%d&pause=%f HTTP/1.1\r\nHost: bench\r\n\r\n" % (CHUNKS, PAUSE_S))
    await reader.readuntil(b"\r\n\r\n")
    last = None
    while (size := int(await reader.readline(), 16)) > 0:
        due = float((await reader.readexactly(size + 2)).strip())
        now = time.monotonic()
        if last is not None:
            late_ms.append(abs((now - last[0]) - (due - last[1])) * 1000)
        last = (now, due)
    writer.close()


async def _round(port: int, streams: int) -> list[float]:
    late_ms: list[float] = []
    await asyncio.gather(*(_one(port, late_ms) for _ in range(streams)))
    return sorted(late_ms)


def measure(server: servers.Server, streams: int) -> tuple[float, float]:
    """99th percentile of the gap error in ms, and microseconds of CPU per chunk over the process tree."""
    before = server.cpu_s()
    late_ms = uvloop.run(_round(server.port, streams))
    cpu_us = (server.cpu_s() - before) / (streams * CHUNKS) * 1e6
    return late_ms[int(len(late_ms) * 0.99)], cpu_us


def main() -> None:
    print(f"\n{STREAMS} streams of {CHUNKS} chunks, {PAUSE_S * 1000:.0f} ms apart, {ROUNDS} interleaved rounds")
    with servers.lampyr() as ours, servers.uvicorn() as theirs:
        for streams in (STREAMS, 5 * STREAMS):
            measure(ours, streams)
            measure(theirs, streams)
            rows = [(measure(ours, streams), measure(theirs, streams)) for _ in range(ROUNDS)]
            for name, pick in (("lampyr", 0), ("uvicorn", 1)):
                gap = statistics.median(row[pick][0] for row in rows)
                cpu = statistics.median(row[pick][1] for row in rows)
                print(f"{name:8} {streams} streams: gap error p99 {gap:.2f} ms, {cpu:.1f} us CPU per chunk", flush=True)
