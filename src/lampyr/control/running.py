"""What runs, for `lampyr ps`: the gateway's list of functions and instances, with the memory each process has."""

from __future__ import annotations

import re
from pathlib import Path
from resource import getpagesize
from typing import Any

from lampyr.runtime.channel import Message

MIB = 1024 * 1024


def ps(functions: list[Message]) -> dict[str, Any]:
    """The payload of `lampyr ps --json` (SPEC 5)."""
    for function in functions:
        for instance in function["instances"]:
            instance["memory_mb"] = round(_memory_bytes(instance["pid"]) / MIB, 1)
    return {"functions": functions}


def _memory_bytes(pid: int) -> int:
    """A process's own memory and its part of what it shares with its snapshot (proc(5), Pss).

    An ordinary user may not read that of a function; then it is what is resident, shared or not. 0: it has ended.
    """
    if pid <= 0:
        return 0
    try:
        found = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        if found:
            return int(found[1]) * 1024
    except OSError:
        pass
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * getpagesize()
    except OSError:
        return 0
