"""The shared snapshots of a project: which packages, for which functions, and what they are told."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256

from lampyr.build import imports, spec
from lampyr.build.packages import Packages
from lampyr.config import Config
from lampyr.core import sharing
from lampyr.runtime.channel import Message
from lampyr.types import Function, Project


def of(
    project: Project, config: Config, plain: Mapping[str, str], private: Sequence[str], packages: Mapping[str, Packages]
) -> dict[str, Message]:
    """By route, the shared snapshot that a function's own is forked from (see node.snapshots.Base.parent_of).

    Only functions whose `packages` are in the same places may share one. `plain` are the variables that every function
    has, `private` names those that only some have. Its key is everything it was made from: packages, variables, and the
    project's own folder as its room shows it.
    """
    entries = sorted((entry.name, entry.inode()) for entry in os.scandir(project.root))
    groups: dict[Packages, list[Function]] = {}
    for one in project.functions:
        if not one.problem:
            groups.setdefault(packages[one.route], []).append(one)
    found: dict[str, Message] = {}
    for its, functions in groups.items():
        for route, chosen in _plan(functions, project, config, its).items():
            made_from = [sorted(chosen), sorted(plain.items()), list(private), list(its.paths), its.isolated, entries]
            key = sha256(json.dumps(made_from).encode()).hexdigest()[:16]
            found[route] = {"key": key, "packages": sorted(chosen), "env": dict(plain), "private": list(private)}
    return found


def _plan(
    functions: Sequence[Function], project: Project, config: Config, packages: Packages
) -> dict[str, frozenset[str]]:
    """What each of the functions shares with another one, where it shares anything."""
    folders = {one.route: spec.of(one, project, config, packages)["project_paths"] for one in functions}
    uses = {one.route: imports.packages_of(one.file, folders[one.route], packages.paths) for one in functions}
    weights = {name: size for used in uses.values() for name, size in used.items()}
    plan = sharing.plan({route: frozenset(used) for route, used in uses.items()}, weights)
    return {route: chosen for route, chosen in plan.items() if chosen}
