"""The nouns that several rooms share: a function, its settings, and a problem found in a project."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one function may do (SPEC 2). Times in seconds, memory in MiB, bodies in bytes; None means no limit.

    Exceptions: `rate_limit` None is the default (60/minute on methods other than GET, HEAD, OPTIONS), "none" is no
    limit; `secrets` None is all of the project; `regions` None is where the runtime goes by default.
    """

    runtime: str = "standard"
    max_duration: float | None = 10.0
    first_byte_timeout: float | None = None
    concurrency: int = 1
    min_instances: int = 0
    max_instances: int = 100
    idle_timeout: float = 60.0
    memory: int = 512
    max_body: int = 4_500_000
    secrets: tuple[str, ...] | None = None
    network: str = "open"
    rate_limit: str | None = None
    budget: str | None = None
    on_disconnect: str = "cancel"
    regions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """A value of the vault, which is never shown: who may have it (None: all functions), and which version it is."""

    value: str = field(repr=False)
    functions: tuple[str, ...] | None
    version: int

    def __str__(self) -> str:
        return "***"


# Environments of the vault: for what serves, and for deployments beside it.
PRODUCTION, PREVIEW = "production", "preview"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a project: where (`file` relative to the project, 1-based `line`), what, and the cure."""

    file: str
    line: int | None
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """As it stands in a log: the place and what is wrong, and the cure on a line of its own."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\nhint: {self.hint}" if self.hint else text


class Metadata(NamedTuple):
    """What the `# /// script` block (PEP 723) in `line` says, None where it does not. `uv` is its [tool.uv]."""

    dependencies: tuple[str, ...] | None
    requires_python: str | None
    line: int = 1
    uv: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One route file: `route` is its public name ("/api/chat/[id]"), `parts` the folders that made it.

    `problem` is the first error of this file: it cannot run, the others can. `metadata` is what the file itself says of
    its dependencies; where it names none, they are the project's.
    """

    route: str
    parts: tuple[str, ...]
    file: Path
    methods: tuple[str, ...]
    asgi: bool
    settings: Settings
    problem: Problem | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What the syntax trees of a project say, before any of its code has run.

    `home` is the project's folder where `root` is a copy of it: its .venv is only there.
    """

    root: Path
    home: Path
    app: Path
    public: Path | None
    functions: tuple[Function, ...] = ()
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = field(default=())
