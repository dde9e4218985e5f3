"""Memory of many functions that import openai: with one warm instance each, and after all instances have left."""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import servers

FUNCTIONS, FEW = 50, 10
MANY = 1000
# Longer than it takes to call all.
IDLE_S = 20.0
ROUTE = """import openai
from lampyr import Request, Response

rate_limit = "none"
idle_timeout = {idle}
{client}
async def GET(req: Request) -> Response:
    return Response.json({{"version": openai.__version__}})
"""


def project(root: Path, count: int, idle_s: float, client: str = "") -> Path:
    for number in range(count):
        folder = root / f"app/f{number}"
        folder.mkdir(parents=True)
        (folder / "route.py").write_text(ROUTE.format(idle=idle_s, client=client))
    return root


def kib(process: psutil.Process, field: str) -> int:
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:  # it has ended meanwhile
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(field))


def levels(server: servers.Server) -> dict[str, list[psutil.Process]]:
    """The processes below the base, by what they are: shared snapshots wait behind a process that does nothing."""
    base = next(one for one in server.tree() if "lampyr.runtime.snapshot" in one.cmdline())
    shared = [inner for outer in base.children() for inner in outer.children() if len(inner.children()) > 1]
    functions = [one for process in shared for one in process.children()]
    return {
        "shared": shared,
        "functions": functions,
        "instances": [one for each in functions for one in each.children()],
    }


def call_all(port: int, count: int) -> Iterator[float]:
    for number in range(count):
        started = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", f"/f{number}")
        status = connection.getresponse().status
        connection.close()
        if status != 200:
            raise RuntimeError(f"/f{number} answered {status}")
        yield (time.perf_counter() - started) * 1000


def await_nobody(server: servers.Server) -> None:
    """Wait until every instance has left: while one lives it has most of its pages in common with its snapshot."""
    deadline = time.monotonic() + 4 * IDLE_S
    while levels(server)["instances"]:
        if time.monotonic() > deadline:
            raise RuntimeError("instances stay")
        time.sleep(0.5)


def images_mib(server: servers.Server) -> float:
    """Of the files that the memory of base and shared snapshots has become, whoever maps how much of them."""
    files = {}
    for process in server.tree():
        try:
            for fd in Path(f"/proc/{process.pid}/fd").iterdir():
                if fd.readlink().name.startswith("memfd:lampyr"):
                    found = fd.stat()
                    files[found.st_ino] = found.st_blocks * 512
        except OSError:  # it has ended meanwhile
            continue
    return sum(files.values()) / 2**20


def median_mib(processes: list[psutil.Process], field: str) -> float:
    return statistics.median(kib(one, field) for one in processes) / 1024


def scale(folder: Path, count: int) -> float:
    """Say what an instance and a snapshot of `count` functions have; the MiB below the base without instances."""
    with servers.lampyr(project(folder, count, IDLE_S)) as server:
        list(call_all(server.port, count))
        warm = levels(server)["instances"]
        print(f"{count} functions importing openai, one warm instance each: {len(warm)} instances")
        print(f"  an instance {median_mib(warm, 'Pss:'):.2f} MiB PSS (median)")
        await_nobody(server)
        found = levels(server)
        below_base = [*found["shared"], *found["functions"]]
        print(f"  scaled to zero: a snapshot's own {median_mib(found['functions'], 'Private_'):.2f} MiB (median)")
        print(f"  the shared snapshot {median_mib(found['shared'], 'Rss:'):.1f} MiB RSS", end="")
        print(f"; its image and the base's: {images_mib(server):.1f} MiB, mapped by somebody or not", flush=True)
        return sum(kib(one, "Pss:") for one in below_base) / 1024


def main() -> None:
    if sys.platform != "linux":
        print("density: skipped, PSS is Linux's")
        return
    with tempfile.TemporaryDirectory() as folder:
        few, fifty = (scale(Path(folder) / str(count), count) for count in (FEW, FUNCTIONS))
        print(f"below the base, scaled to zero: {few:.1f} MiB PSS with {FEW} functions, {fifty:.1f} with {FUNCTIONS}")
        print(f"  a function more costs {(fifty - few) / (FUNCTIONS - FEW):.2f} MiB")
        started = time.perf_counter()
        with servers.lampyr(project(Path(folder) / "many", MANY, 5.0)) as server:
            ready_s = time.perf_counter() - started
            took_ms = sorted(call_all(server.port, MANY))
            total = sum(kib(one, "Pss:") for one in server.tree()) / 1024
            print(f"{MANY} functions: ready after {ready_s:.1f} s, all answered, p50 {took_ms[MANY // 2]:.0f} ms")
            print(f"  the whole server {total:.0f} MiB PSS", flush=True)


if __name__ == "__main__":
    main()
