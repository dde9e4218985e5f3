"""Nobody waits for a longer table of descriptors."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from serving import Serve, until

from lampyr.node.descriptors import MOST

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

PROJECT = {
    "app/hello/route.py": "def GET(): return 'fine'\n",
    "lampyr.toml": "[providers.openai]\nbase_url = 'http://127.0.0.1:9'\n",
}
ASKED = """
import os
from lampyr.node import descriptors
before = os.listdir("/proc/self/fd")
descriptors.make_room()
assert os.listdir("/proc/self/fd") == before
"""


@pytest.mark.parametrize("module", ["lampyr.gateway", "lampyr.broker"])
def test_who_serves_everybody_has_a_long_table(serve: Serve, module: str) -> None:
    server = serve(PROJECT)
    wanted = min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    until(lambda: _length(server.find(module).pid) >= wanted, "a long table")


def _length(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("FDSize"))


@pytest.mark.parametrize("limit", [16, 4096])
def test_no_descriptor_stays_open_and_few_are_enough(limit: int) -> None:
    command = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", sys.executable, "-c", ASKED]
    subprocess.run(command, check=True)
