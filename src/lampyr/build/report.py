"""What `lampyr build` finds out about a project: whether it can be served, and what each function brings with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lampyr.build import check, environment
from lampyr.build.brokering import Brokered
from lampyr.build.progress import Progress
from lampyr.build.scan import relative, scan
from lampyr.build.supply import Supplier
from lampyr.config import Config
from lampyr.errors import ConfigError, LampyrError
from lampyr.types import Function, Problem, Project, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package as far as a function loads it. `imported_by`: the file or the package that asked for it first."""

    name: str
    bytes: int
    imported_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one function loads, project and packages: the standard library is everybody's. None: it cannot be imported.

    `packages` has the largest first.
    """

    files: int | None = None
    bytes: int | None = None
    packages: tuple[Package, ...] = ()
    import_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The project with everything that is wrong with it, and the load of each function, by route."""

    project: Project
    loads: Mapping[str, Load]


def make(
    root: Path,
    state: Path,
    settings: Config,
    brokered: Brokered | None,
    vault: Mapping[str, Secret],
    progress: Progress,
    fence: Callable[[str, int], check.Fence],
) -> Report:
    """Check the project at `root` as for production, install what it asks for, and import every function once.

    `state` is where packages are installed, `brokered` are its providers, `vault` holds its secrets; `fence` makes the
    limits of an import (`check.imports`).
    """
    supply = Supplier(state, os.environ, progress.now_at).get(scan(root, settings))
    project = supply.project
    env = environment.read(root, "production", os.environ, vault).given(brokered)
    numbers = {id(function): number for number, function in enumerate(project.functions, 1)}

    def begin(function: Function) -> None:
        progress.at(f"importing {function.route} ({numbers[id(function)]} of {len(numbers)})")

    loads: dict[str, Load] = {}
    errors: list[Problem] = []
    warnings: dict[Problem, None] = {}
    for function, facts in check.imports(project, settings, env, supply.packages, begin, fence):
        if "failed" in facts:
            errors.append(check.problem_of(function, project, facts["failed"]))
        else:
            loads[function.route] = _load(facts)
            warnings |= dict.fromkeys(check.warnings_of(facts, project.root))
    judged = env.judge(project)
    judged = replace(judged, errors=(*judged.errors, *errors), warnings=(*judged.warnings, *warnings))
    return Report(project=judged, loads=loads)


def _load(facts: Mapping[str, Any]) -> Load:
    trace = facts["trace"]
    packages = tuple(
        Package(name=one["name"], bytes=one["bytes"], imported_by=one["imported_by"]) for one in trace["packages"]
    )
    import_ms = round(facts["import_ms"], 1)
    return Load(files=trace["files"], bytes=trace["bytes"], packages=packages, import_ms=import_ms)


def as_json(report: Report) -> dict[str, Any]:
    """The report in the shape of SPEC 5."""
    project = report.project
    return {
        "ok": not project.errors,
        "functions": [_entry(project, function, report.loads) for function in project.functions],
        "errors": [_problem(found) for found in project.errors],
        "warnings": [_problem(found) for found in project.warnings],
    }


def nothing(error: LampyrError) -> dict[str, Any]:
    """The same shape where `error` keeps the project from being looked at: its folder, settings or vault."""
    file, line, what = (error.file, error.line, error.what) if isinstance(error, ConfigError) else ("", None, "")
    found = error.problems or [Problem(file=file, line=line, message=what or error.message, hint=error.hint)]
    told = {"code": error.code, "message": error.message, "hint": error.hint}
    return {"ok": False, "functions": [], "errors": [_problem(one) for one in found], "warnings": [], "error": told}


def _entry(project: Project, function: Function, loads: Mapping[str, Load]) -> dict[str, Any]:
    load = loads.get(function.route, Load())
    return {
        "function": function.route,
        "file": relative(project.root, function.file),
        "runtime": function.settings.runtime,
        "methods": list(function.methods),
        "bytes": load.bytes,
        "files": load.files,
        "packages": [{"name": one.name, "bytes": one.bytes, "imported_by": one.imported_by} for one in load.packages],
        "import_ms": load.import_ms,
    }


def _problem(found: Problem) -> dict[str, Any]:
    return {"file": found.file, "line": found.line, "message": found.message, "hint": found.hint}
