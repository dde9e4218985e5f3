"""What pages, the API and `/metrics` know of the server: where it is, and whom to ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request

from lampyr.console.line import Line


@dataclass(frozen=True, slots=True)
class Facts:
    """`control` is asked what runs; the ledger in `ledger` is read; `url` is where the functions answer."""

    control: Line
    root: Path
    state: Path
    url: str
    mode: str

    @classmethod
    def told(cls, message: Mapping[str, Any], control: Line) -> Facts:
        """As serve.py says it."""
        return cls(control, Path(message["root"]), Path(message["state"]), message["url"], message["mode"])

    @property
    def ledger(self) -> Path:
        return self.state / "ledger"

    @property
    def logs(self) -> Path:
        return self.state / "logs"


def of(request: Request) -> Facts:
    """Those of the console that got this request."""
    facts: Facts = request.app.state.facts
    return facts
