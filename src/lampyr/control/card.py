"""What is deployed, for people: each function with its settings, whom it may call, and what its import has loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lampyr.control.releases import Release
from lampyr.types import Function, Project

_HERE = ("local", "echo")
_HOSTS = {"local": "model on this machine", "echo": "deterministic echo"}


def card(release: Release, root: Path, mode: str, weights: Weights) -> dict[str, Any]:
    """A message without any value of a secret. `root` is the project's, of which `release` may be a copy."""
    project, inventory = release.judged, release.inventory
    here = [one.name for one in release.settings.providers.values() if one.kind in _HERE]
    may_call = inventory.get("may_call", {})
    known = {one["name"] for one in inventory.get("secrets", [])}
    return {
        "project": root.name,
        "mode": mode,
        "deployment": release.id,
        "scanned_ms": release.scanned_ms,
        "public_files": release.public_files,
        "errors": len(project.errors),
        "problems": [str(one) for one in (*project.errors, *project.warnings)],
        "secrets": inventory.get("secrets", []),
        "providers": [
            {
                "name": one.name,
                "kind": one.kind,
                "host": _HOSTS.get(one.kind) or urlsplit(one.base_url or "").hostname or one.kind,
                "secret": one.secret if one.kind not in _HERE else None,
                "brokered": one.kind not in _HERE,
                "has_key": one.secret is None or one.secret in known,
            }
            for one in release.settings.providers.values()
        ],
        "functions": [
            {**_function(one, project), **weights.of(one.route), "providers": [*may_call.get(one.route, ()), *here]}
            for one in project.functions
        ],
    }


def _function(function: Function, project: Project) -> dict[str, Any]:
    return {
        "function": function.route,
        "file": str(function.file.relative_to(project.root)),
        "runtime": function.settings.runtime,
        "methods": list(function.methods),
        "asgi": function.asgi,
        "settings": asdict(function.settings),
        "problem": str(function.problem) if function.problem else None,
    }


class Weights:
    """How many files the import of each function has read, and their bytes, as far as they are still there."""

    def __init__(self) -> None:
        self._files: dict[str, set[str]] = {}
        self._known: dict[str, dict[str, int]] = {}

    def loaded(self, route: str, files: set[str] | None) -> None:
        """A function has been imported anew; None: that went wrong."""
        self._known.pop(route, None)
        self._files.pop(route, None)
        if files is not None:
            self._files[route] = files

    def of(self, route: str) -> dict[str, int | None]:
        """`loaded_files` and `loaded_bytes`, null where it is not known (yet)."""
        if route not in self._files:
            return {"loaded_files": None, "loaded_bytes": None}
        if route not in self._known:
            sizes = list(_sizes(self._files[route]))
            self._known[route] = {"loaded_files": len(sizes), "loaded_bytes": sum(sizes)}
        return dict(self._known[route])


def _sizes(files: Iterable[str]) -> Iterator[int]:
    for file in files:
        try:
            yield os.stat(file).st_size
        except OSError:
            continue
