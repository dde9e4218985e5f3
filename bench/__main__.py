"""Measures Lampyr beside uvicorn + Starlette, interleaved; prints medians and ratios, and keeps them in RESULTS.md.

Never asserts: a figure is read by people, who know what else the machine was doing.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import books
import burst
import cold
import deadline
import density
import instance
import masking
import refused
import relay
import routing
import servers
import stream
import warm

import broker
from lampyr.gateway import call

BENCHES: dict[str, Callable[[], None]] = {
    "cold": cold.main,
    "burst": burst.main,
    "warm": warm.main,
    "stream": stream.main,
    "density": density.main,
    "deadline": deadline.main,
    "instance": instance.main,
    "routing": routing.main,
    "masking": masking.main,
    "books": books.main,
    "refused": refused.main,
    "broker": broker.main,
    "relay": relay.main,
}
RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Results\n\nWritten by `./do bench`; each part as it was measured last.\n"


class Tee(io.TextIOBase):
    """Prints what is printed, and keeps it."""

    def __init__(self) -> None:
        self.kept = ""

    def write(self, text: str) -> int:
        self.kept += text
        sys.__stdout__.write(text)  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
        return len(text)


def machine() -> str:
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if platform.system() == "Linux" else None
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "starlette", "uvloop", "httptools"))
    return (
        f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), {memory_gb:.0f} GB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {versions}; "
        f"Lampyr {'pure Python' if (call.__file__ or '').endswith('.py') else 'compiled'}"
    )


def keep(name: str, text: str) -> None:
    """Put a bench's output where its last one stood."""
    section = f"\n## {name}\n\n{machine()}\n\n```\n{text.strip()}\n```\n"
    before = RESULTS.read_text() if RESULTS.exists() else TITLE
    found = re.search(rf"\n## {name}\n.*?(?=\n## |\Z)", before, re.DOTALL)
    RESULTS.write_text(before.replace(found[0], section) if found else before + section)


def main() -> int:
    wanted = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in wanted if name not in BENCHES]
    if unknown:
        print(f"bench: error: unknown bench {unknown[0]!r}\nhint: one of {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {servers.CLIENT_CORE})
    for name in wanted:
        tee = Tee()
        with contextlib.redirect_stdout(tee):
            BENCHES[name]()
        keep(name, tee.kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
