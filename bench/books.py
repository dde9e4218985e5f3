"""What a row of the ledger and a line of the log cost: Lampyr as it is beside one whose gateway keeps neither.

The one without is a copy of the installed package in which the methods that every request calls return at once, built
as wheels are. No setting of the product does that.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import servers

TURNS, WINDOWS, REQUESTS, CONNECTIONS = 40, 10, 500, 64
CASES = (("standard", "/api/echo"), ("edge", "/api/edge"))
KEPT = {"gateway/metering.py": ("refused", "open", "close", "streamed", "amend"), "gateway/log.py": ("access",)}
ROOT = Path(__file__).parent.parent
BODY = b'{"prompt": "Why is the sky blue?"}'


def without(folder: Path) -> Path:
    """A package that keeps no books, made in `folder`."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for path, names in KEPT.items():
        file = source / "src/lampyr" / path
        text = file.read_text()
        for name in names:
            text, count = re.subn(
                rf'(    def {name}\(.*?\) -> None:\n +""".*?"""\n)', r"\1        return\n", text, count=1, flags=re.S
            )
            if not count:
                raise RuntimeError(f"{path} has no {name}() any more; bench/books.py names what every request calls")
        file.write_text(text)
    made = folder / "made"
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", str(made), "-q"]
    subprocess.run([*command, str(source)], check=True, stdout=sys.stderr)
    return made


def windows(server: servers.Server, path: str) -> list[tuple[float, float]]:
    """Microseconds of CPU a request over the whole tree, and requests a second, in each of some short times.

    Clients wait for their answers and ask again. What others do on the machine lengthens some windows and not all.
    """
    request = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    request %= (path.encode(), len(BODY), BODY)
    pids, found = [one.pid for one in server.tree()], list[tuple[float, float]]()
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        for _ in range(CONNECTIONS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            selector.register(client, selectors.EVENT_READ)
            client.sendall(request)
        answered, before_ns, began_s = -REQUESTS, 0, 0.0  # the first window is not looked at
        while len(found) < WINDOWS:
            for key, _ in selector.select():
                if not key.fileobj.recv(65536).startswith(b"HTTP/1.1 200"):  # type: ignore[union-attr]
                    raise RuntimeError(f"{path} did not answer properly")
                key.fileobj.sendall(request)  # type: ignore[union-attr]
                answered += 1
            if answered >= (REQUESTS if before_ns else 0):
                now_ns, now_s = sum(map(_cpu_ns, pids)), time.monotonic()
                if before_ns:
                    found.append(((now_ns - before_ns) / answered / 1e3, answered / (now_s - began_s)))
                answered, before_ns, began_s = 0, now_ns, now_s
    return found


def _cpu_ns(pid: int) -> int:
    """What a process has used (the kernel's clock of it); 0 where it has ended."""
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return 0


def main() -> None:
    print(f"\na row of the ledger and a line of the log, {CONNECTIONS} connections, server on one core")
    print(
        f"{TURNS} turns each, in windows of {REQUESTS} requests; medians of these, and the throughput of the best tenth"
    )
    print("              CPU    without       more  throughput")
    with tempfile.TemporaryDirectory() as folder:
        made = without(Path(folder))
        with servers.lampyr() as ours, servers.lampyr(package=made) as bare:
            for name, path in CASES:
                windows(ours, path), windows(bare, path)
                each: list[list[tuple[float, float]]] = [[], []]
                for _ in range(TURNS):
                    for server, kept in zip((ours, bare), each, strict=True):
                        kept += windows(server, path)
                (used_us, rate), (bare_us, bare_rate) = map(_parts, each)
                more, less = used_us - bare_us, (rate / bare_rate - 1) * 100
                print(f"{name:8} {used_us:6.1f} us {bare_us:7.1f} us {more:7.2f} us {less:9.1f} %", flush=True)


def _parts(kept: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(used_us for used_us, _ in kept), statistics.quantiles((rate for _, rate in kept), n=10)[8]


if __name__ == "__main__":
    os.sched_setaffinity(0, {servers.CLIENT_CORE})
    main()
