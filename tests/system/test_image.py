"""A function's snapshot has of its own only what differs from its parent's memory, once it is at rest."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from serving import Serve, Server, until

PAGE_BYTES = 4096
# What holds the same as the parent's is a third where nothing is given back, and 4 % after that: what the call itself
# and the next wait look at.
MOST_ALIKE = 0.15

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root looks into the memory of a function's snapshot"
)


def snapshot_of(server: Server) -> psutil.Process | None:
    """The process that looks at its own pages."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        try:
            fds = [os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if any(fd.endswith("/pagemap") for fd in fds):
            return process
    return None


def own_pages(pid: int) -> list[int]:
    """The addresses of the pages of an image that this process has written to."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in maps:
            if "/memfd:lampyr" not in line or " rw-p " not in line:
                continue
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            entries = os.pread(pagemap.fileno(), (end - start) // PAGE_BYTES * 8, start // PAGE_BYTES * 8)
            pages = enumerate(struct.unpack(f"{len(entries) // 8}Q", entries))
            found += [start + at * PAGE_BYTES for at, entry in pages if entry >> 63 and not entry >> 61 & 1]
    return found


def alike(pid: int, parent: int) -> float:
    """How much of these pages holds the same as the parent's."""
    pages = own_pages(pid)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as ours, open(f"/proc/{parent}/mem", "rb", buffering=0) as theirs:
        same = [os.pread(ours.fileno(), PAGE_BYTES, at) == os.pread(theirs.fileno(), PAGE_BYTES, at) for at in pages]
    return sum(same) / len(same)


@pytest.mark.needs("room")
def test_a_snapshot_at_rest_has_given_back_what_it_did_not_change(serve: Serve) -> None:
    asked = "import importlib.util; print(importlib.util.find_spec('lampyr.runtime._image') is not None)"
    if "True" not in subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd="/").stdout:
        pytest.skip("Lampyr is not compiled here")
    server = serve({"app/plain/route.py": "idle_timeout = 0.05\ndef GET(): return 'here'\n"})
    for _ in range(3):  # with a fork in between, and again
        assert server.get("/plain").status == 200
        process = snapshot_of(server)
        assert process is not None
        pid, parent = process.pid, process.ppid()
        until(lambda pid=pid, parent=parent: alike(pid, parent) < MOST_ALIKE, "given back")
    assert server.get("/plain").body == b"here"
