"""Which model answers on this machine, and why; and the command that starts its process."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lampyr.model import catalog

IDLE_SECONDS = 300.0
# What callers have to show, where it is set: others on this machine find the socket as well.
KEY_VARIABLE = "LAMPYR_MODEL_KEY"

# Where the package index has xllamacpp ready-made (CPU wheels of 2026); elsewhere pip would try to compile llama.cpp.
WHEELS = {
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("darwin", "x86_64"),
    ("darwin", "arm64"),
    ("win32", "AMD64"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Who answers: `backend` is "local" or "echo", `model` the id on the wire; `reason` and `hint` tell why an echo."""

    backend: str
    model: str
    path: Path | None = None
    reason: str = ""
    hint: str = ""

    @property
    def sentence(self) -> str:
        """One line for a terminal or a page."""
        if self.backend == "local":
            return f"{self.model} answers on this machine"
        return f"the echo answers because {self.reason}" if self.reason else "the echo answers"


def status(name: str = catalog.DEFAULT) -> Status:
    """Who would answer a call for the local model `name` now. Loads nothing; reads the file once to check its hash."""
    model = catalog.named(name)
    if find_spec("xllamacpp") is None:
        return _echo(*_no_engine())
    path = catalog.find(model)
    if path is None:
        return _echo(f"the model {model.title} is not on this machine", f"lampyr model pull {model.name}")
    if not catalog.is_genuine(path, model):
        return _echo(f"the file of {model.title} is damaged", f"lampyr model pull {model.name}")
    return Status(backend="local", model=model.id, path=path)


def _echo(reason: str, hint: str) -> Status:
    return Status(backend="echo", model="echo", reason=reason, hint=hint)


def _no_engine() -> tuple[str, str]:
    machine = (sys.platform, platform.machine())
    if machine in WHEELS:
        return "the package xllamacpp is not installed", "pip install 'lampyr[local]'"
    return (
        f"there is no ready-made xllamacpp for {' '.join(machine)}",
        "build it from source (it needs CMake, a C++ compiler and Rust): pip install 'lampyr[local]'",
    )


def command(
    fd: int, *, name: str = catalog.DEFAULT, echo: bool = False, idle_seconds: float = IDLE_SECONDS
) -> list[str]:
    """What to execute for a model process that serves the listening socket `fd` (to be inherited, see `pass_fds`).

    `echo` makes it the echo whatever is installed (`kind = "echo"`). It ends with 0 after `idle_seconds` without a
    connection; its caller keeps the socket and starts it again when that becomes readable. It ends with its caller too,
    which must be the process that calls this.
    """
    options = [
        "--model",
        name,
        "--idle",
        str(idle_seconds),
        "--parent",
        str(os.getpid()),
        *(["--echo"] if echo else []),
    ]
    # -P: a file of the current folder must never pass for one of our modules.
    return [sys.executable, "-P", "-m", "lampyr.model", str(fd), *options]
