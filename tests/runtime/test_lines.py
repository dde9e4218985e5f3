"""Lines that say whose they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from types import SimpleNamespace
from lampyr.runtime import context, lines
os.dup2(2, 1)  # a pipe, where a file was when Python made its streams
lines.speak()
print("before")
context.current.set(SimpleNamespace(request=SimpleNamespace(id="ID")))
print("one\\ntwo")
print("a", end="")
print("b", "c")
print()
print("flushed at its end", end="")
context.current.set(SimpleNamespace(request=SimpleNamespace(id="NEXT")))
print("another's")
print("its own", end="")
"""


def test_lines_printed_inside_an_invocation_are_marked(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        run = subprocess.run([sys.executable, "-c", PROGRAM], stdout=file, stderr=subprocess.PIPE, check=True)
    mark = b"\x1eID\x1e"
    assert run.stderr.split(b"\n") == [
        b"before",
        mark + b"one",
        mark + b"two",
        mark + b"ab c",
        mark,
        mark + b"flushed at its end",
        b"\x1eNEXT\x1eanother's",
        b"\x1eNEXT\x1eits own",
    ]
