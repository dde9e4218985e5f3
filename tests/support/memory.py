"""What is in the memory of a process (proc_pid_mem(5)); only root may look."""

from __future__ import annotations

import re
from pathlib import Path


def holds(pid: int, text: str | bytes) -> bool:
    """Whether a process has `text` in its memory."""
    wanted = text.encode() if isinstance(text, str) else text
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for found in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps, re.M):
                start, end = int(found[1], 16), int(found[2], 16)
                memory.seek(start)
                try:
                    if wanted in memory.read(end - start):
                        return True
                except OSError:
                    continue
    except OSError:
        pass
    return False
