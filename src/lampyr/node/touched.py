"""Which pages an instance has made its own: what the next one will write to as well, as far as anybody can know.

To record the pages of one start and have them there at the next is REAP's idea (Ustiugov et al., ASPLOS 2021).
"""

from __future__ import annotations

import os
import re
from array import array

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# More are no sign of what the next start needs, but of what this call did.
MOST_BYTES = 16 * 1024 * 1024
# A process can map far more than it may use (MAP_GROWSDOWN), and each page takes eight bytes here.
MOST_MAPPED_BYTES = 4 * 1024**3
# The highest byte of an entry of eight (proc_pid_pagemap(5)): the page is there, is no file's, and nobody else has it.
_OWN = re.compile(rb"\x81+")


def pages(pid: int) -> bytes:
    """Their ranges, each a start and a length in bytes, as native unsigned 64-bit numbers; b"" where nobody says."""
    ranges = array("Q")
    left = MOST_MAPPED_BYTES // PAGE_BYTES
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
            for line in maps:
                where, rights, _ = line.split(None, 2)
                if rights == "rw-p":
                    first, end = (int(address, 16) // PAGE_BYTES for address in where.split("-"))
                    left -= end - first
                    if left < 0:
                        return b""
                    entries = os.pread(pagemap.fileno(), (end - first) * 8, first * 8)
                    for run in _OWN.finditer(entries[7::8]):
                        ranges.extend(((first + run.start()) * PAGE_BYTES, (run.end() - run.start()) * PAGE_BYTES))
    except (OSError, ValueError):
        return b""
    return ranges.tobytes() if sum(ranges[1::2]) <= MOST_BYTES else b""
