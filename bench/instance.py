"""What one request costs inside an instance, in microseconds.

The first line is Request, Response and JSON in and out alone; the others are an instance's whole CPU time, frames,
task and system calls included, read from outside over a socketpair.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator

from lampyr import Request, Response
from lampyr.runtime import wire
from lampyr.runtime.instance import Instance
from lampyr.runtime.program import Program
from lampyr.runtime.request import Body

BATCH = 32
ROUNDS = 12
REQUESTS = 6400
CHUNKS = 3000

FIELDS = [
    b"0193f0a1b2c3", b"POST", b"http://127.0.0.1:3000", b"/api/echo", b"", b"", b"127.0.0.1", b"9.998", b"",
    b"host", b"127.0.0.1:3000", b"user-agent", b"bench/1.0", b"accept", b"*/*", b"accept-encoding", b"gzip, br",
    b"content-type", b"application/json", b"content-length", b"58",
]  # fmt: skip
BODY = b'{"prompt":"What is a firefly?","temperature":0.7,"n":1}'


async def echo(request: Request) -> Response:
    body = await request.json()
    return Response.json({"prompt": body["prompt"], "n": body["n"], "ok": True})


async def nothing(request: Request) -> Response:
    return Response()


async def chunks() -> AsyncIterator[str]:
    for _ in range(CHUNKS):
        yield "data: token\n\n"


def sync_chunks() -> Iterator[str]:
    for _ in range(CHUNKS):
        yield "data: token\n\n"


def stream(name: str, handler: object) -> None:
    """What a chunk costs in an instance, one system call for each, and a thread's step where the generator is sync."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        Instance(Program("bench/route.py", {"POST": handler}, None, 4)).serve(theirs)  # type: ignore[dict-item]
    theirs.close()
    ours.recv(wire.HEADER_BYTES)
    cpu_clock = (~pid << 3) | 2
    results = []
    for number in range(1, ROUNDS + 1):
        before = time.clock_gettime(cpu_clock)
        ours.sendall(wire.head_frame(number, wire.REQUEST_WHOLE, FIELDS, BODY))
        ours.sendall(wire.frame(number, wire.CREDIT, (1 << 30).to_bytes(4, "big")))
        drain(ours, CHUNKS + 2)
        results.append((time.clock_gettime(cpu_clock) - before) / CHUNKS * 1e6)
    ours.close()
    os.waitpid(pid, 0)
    show(name, results)


def construct() -> None:
    """Request, JSON in, Response, JSON out, head: what the classes themselves cost."""
    results = []
    for _ in range(ROUNDS):
        before = time.process_time()
        for _ in range(REQUESTS):
            coroutine = echo(Request(FIELDS, Body(BODY)))
            try:
                coroutine.send(None)
            except StopIteration as answer:
                answer.value.fields()
        results.append((time.process_time() - before) / REQUESTS * 1e6)
    show("Request, Response, JSON", results)


def show(name: str, results: list[float]) -> None:
    print(f"{name:24} {statistics.median(results):6.2f} µs  (best {min(results):.2f})")


def run(name: str, handler: object) -> None:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pid = os.fork()
    if pid == 0:
        ours.close()
        Instance(Program("bench/route.py", {"POST": handler}, None, 4)).serve(theirs)  # type: ignore[dict-item]
    theirs.close()
    ours.recv(wire.HEADER_BYTES)
    cpu_clock = (~pid << 3) | 2  # the process's CPU clock (clock_getcpuclockid(3)), readable from outside
    results = []
    for _ in range(ROUNDS):
        before = time.clock_gettime(cpu_clock)
        for batch in range(REQUESTS // BATCH):
            first = batch * BATCH + 1
            frames = (wire.head_frame(first + n, wire.REQUEST_WHOLE, FIELDS, BODY) for n in range(BATCH))
            ours.sendall(b"".join(frames))
            drain(ours, BATCH)
        results.append((time.clock_gettime(cpu_clock) - before) / REQUESTS * 1e6)
    ours.close()
    os.waitpid(pid, 0)
    show(name, results)


def drain(sock: socket.socket, answers: int) -> None:
    data = b""
    while answers:
        data += sock.recv(1 << 18)
        position = 0
        while len(data) - position >= wire.HEADER_BYTES:
            length, _, _ = wire.HEADER.unpack_from(data, position)
            if len(data) - position - wire.HEADER_BYTES < length:
                break
            position += wire.HEADER_BYTES + length
            answers -= 1
        data = data[position:]


def main() -> None:
    construct()
    run("empty response", nothing)
    run("JSON in, JSON out", echo)
    stream("chunk, async generator", chunks)
    stream("chunk, sync generator", sync_chunks)


if __name__ == "__main__":
    main()
