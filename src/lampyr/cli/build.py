"""`lampyr build`: check a project and report on its functions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, project_in
from lampyr.types import Function, Problem, Project


@click.command
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build(folder: Path, as_json: bool) -> int:
    """Check the project in DIR and list its functions.

    Any error makes it fail.
    """
    root = project_in(folder)
    from lampyr import config
    from lampyr.build import environment
    from lampyr.build.scan import scan

    project = scan(root, config.load(root))
    project = environment.read(root, "production", os.environ).judge(project)
    if as_json:
        terminal.payload_json(_report(project))
    else:
        for function in project.functions:
            terminal.payload(_row(function))
    for kind, problems in (("warning", project.warnings), ("error", project.errors)):
        for found in problems:
            terminal.problem(kind, found)
    return 1 if project.errors else 0


def _report(project: Project) -> dict[str, Any]:
    return {
        "ok": not project.errors,
        "functions": [_entry(project.root, function) for function in project.functions],
        "errors": [_problem(found) for found in project.errors],
        "warnings": [_problem(found) for found in project.warnings],
    }


def _entry(root: Path, function: Function) -> dict[str, Any]:
    return {
        "function": function.route,
        "file": str(function.file.relative_to(root)),
        "runtime": function.settings.runtime,
        "methods": list(function.methods),
    }


def _problem(found: Problem) -> dict[str, Any]:
    return {"file": found.file, "line": found.line, "message": found.message, "hint": found.hint}


def _row(function: Function) -> str:
    answers = "an ASGI application" if function.asgi else " ".join(function.methods)
    return f"{function.route:<32} {function.settings.runtime:<9} {answers}"
