"""A server with room for few snapshots serves many functions all the same."""

from __future__ import annotations

import sys
import time

import pytest
from serving import Serve, settled, until

ROUTE = """
idle_timeout = 0.05
print("importing", flush=True)
data = bytearray(b"x" * 12_000_000)

async def GET(req):
    return {"bytes": len(data)}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_snapshots_are_let_go_and_come_back(serve: Serve) -> None:
    files = {f"app/f{number}/route.py": ROUTE for number in range(5)}
    server = serve({**files, "lampyr.toml": "[server]\nsnapshot_memory = 40\n"})
    for _ in range(3):
        for number in range(5):
            assert server.get(f"/f{number}").json() == {"bytes": 12_000_000}
    base = server.find("lampyr.runtime.snapshot")
    until(lambda: 1 <= len(base.children()) <= 4, "some to go")  # three of them own 36 MB, and the newest always stays
    imports = settled(lambda: sum("| importing" in line for line in server.lines))  # the last lines are still to come
    time.sleep(2.5)  # what was killed comes back after 1 s; what was let go must not, or it would push others out
    assert sum("| importing" in line for line in server.lines) == imports
