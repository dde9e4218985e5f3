"""Many streams of a provider at once, passed on by a function: late chunks and CPU, with the broker and without it."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
import servers
import uvloop

STREAMS, CHUNKS, PAUSE_S, ROUNDS = 500, 40, 0.5, 3
# The stock client of the SDKs, as it is; what differs is whom it asks.
FUNCTION = """
import os
import httpx2
runtime = "edge"
URLS = {{"direct": "http://{provider}/v1", "broker": os.environ["OPENAI_BASE_URL"]}}
HEADERS = {{"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}}
ASKED = {{"model": "m", "stream": True, "messages": [{{"role": "user", "content": "Hello"}}]}}
client = httpx2.AsyncClient(timeout=None, limits=httpx2.Limits(max_connections=None))

async def GET(req):
    url = URLS[req.query.get("way")] + "/chat/completions"
    async with client.stream("POST", url, json=ASKED, headers=HEADERS) as answer:
        async for piece in answer.aiter_raw():
            yield piece
"""


class Round(NamedTuple):
    """What one round took: streams that ended as they should, delays in ms, microseconds of CPU a chunk."""

    whole: int
    late_p50_ms: float
    late_p99_ms: float
    gap_p99_ms: float
    all_us: float
    broker_us: float


# --- the provider, in a process of its own


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length[15:]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(CHUNKS):
                await asyncio.sleep(PAUSE_S)
                chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": f"{time.monotonic():.6f}"}}]}
                _write(writer, json.dumps(chunk))
            _write(writer, "[DONE]")
            writer.write(b"0\r\n\r\n")
    except asyncio.IncompleteReadError:
        writer.close()


def _write(writer: asyncio.StreamWriter, text: str) -> None:
    event = f"data: {text}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def _provider() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"127.0.0.1:{process.stdout.readline().strip()}"
    process.terminate()
    process.wait(10)


# --- the clients


async def _one(port: int, way: str, heard: list[list[tuple[float, float]]]) -> None:
    """Read one stream; when each chunk was written and when it arrived."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /relay?way={way} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    times: list[tuple[float, float]] = []
    pending = b""
    while (size := int(await reader.readline(), 16)) > 0:
        pending += (await reader.readexactly(size + 2))[:-2]
        *events, pending = pending.split(b"\n\n")
        now = time.monotonic()
        times += [(float(json.loads(event[6:])["choices"][0]["delta"]["content"]), now) for event in events[:CHUNKS]
                  if event != b"data: [DONE]"]  # fmt: skip
    heard.append(times)
    writer.close()


async def _all(port: int, way: str, streams: int) -> list[list[tuple[float, float]]]:
    heard: list[list[tuple[float, float]]] = []
    # Not all in one millisecond, as no provider answers so.
    calls = []
    for _ in range(streams):
        calls.append(asyncio.create_task(_one(port, way, heard)))
        await asyncio.sleep(PAUSE_S / streams)
    await asyncio.gather(*calls, return_exceptions=True)
    return heard


def _measure(server: servers.Server, way: str, streams: int) -> Round:
    broker = next(one for one in server.tree() if "lampyr.broker" in one.cmdline())
    before_s, broker_before_s = server.cpu_s(), _cpu_s(broker)
    heard = uvloop.run(_all(server.port, way, streams))
    chunks = streams * CHUNKS
    all_us = (server.cpu_s() - before_s) / chunks * 1e6
    broker_us = (_cpu_s(broker) - broker_before_s) / chunks * 1e6
    late = sorted((now - due) * 1000 for times in heard for due, now in times)
    gaps = sorted(
        abs((now - before) - (due - written)) * 1000
        for times in heard
        for (written, before), (due, now) in pairwise(times)
    )
    whole = sum(len(times) == CHUNKS for times in heard)
    return Round(whole, late[len(late) // 2], _p99(late), _p99(gaps), all_us, broker_us)


def _cpu_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def _p99(ordered: list[float]) -> float:
    return ordered[int(len(ordered) * 0.99)]


def main() -> None:
    print(f"\n{STREAMS} streams of a provider, {CHUNKS} chunks each, {PAUSE_S * 1000:.0f} ms apart, on one core")
    print(f"the median of {ROUNDS} interleaved rounds; CPU of all processes, and of these the broker's")
    with _provider() as where, tempfile.TemporaryDirectory() as name:
        root = Path(name)
        route = root / "app/relay/route.py"
        route.parent.mkdir(parents=True)
        route.write_text(FUNCTION.format(provider=where))
        settings = f'[functions]\nrate_limit = "none"\n[providers.openai]\nbase_url = "http://{where}/v1"\n'
        (root / "lampyr.toml").write_text(settings)
        (root / ".env.local").write_text("OPENAI_API_KEY=sk-bench-of-the-relay\n")
        with servers.lampyr(root) as server:
            for way in ("direct", "broker"):
                _measure(server, way, STREAMS // 5)
            rounds = [(_measure(server, "direct", STREAMS), _measure(server, "broker", STREAMS)) for _ in range(ROUNDS)]
    for way, found in zip(("direct", "broker"), zip(*rounds, strict=True), strict=True):
        whole = min(one.whole for one in found)
        _, late_50, late_99, gap, all_us, broker_us = (statistics.median(values) for values in zip(*found, strict=True))
        print(
            f"{way}: {whole} of {STREAMS} whole; a chunk is {late_50:.1f} ms late (p99 {late_99:.1f}), "
            f"gap error p99 {gap:.1f} ms; {all_us:.0f} us of CPU a chunk, the broker's {broker_us:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    uvloop.run(_serve())
