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
from lampyr.types import Project


def of(
    project: Project, config: Config, plain: Mapping[str, str], private: Sequence[str], packages: Packages
) -> dict[str, Message]:
    """By route, the shared snapshot that a function's own is forked from (see node.snapshots.Base.parent_of).

    `plain` are the variables that every function has, `private` names those that only some have. Its key is everything
    it was made from: packages, variables, and the project's own folder as its room shows it.
    """
    specs = {one.route: spec.of(one, project, config, packages) for one in project.functions if not one.problem}
    uses = {
        one.route: imports.packages_of(one.file, specs[one.route]["project_paths"], packages.paths)
        for one in project.functions
        if not one.problem
    }
    weights = {name: size for used in uses.values() for name, size in used.items()}
    entries = sorted((entry.name, entry.inode()) for entry in os.scandir(project.root))
    found: dict[str, Message] = {}
    for route, chosen in sharing.plan({route: frozenset(used) for route, used in uses.items()}, weights).items():
        if chosen:
            made_from = [sorted(chosen), sorted(plain.items()), list(private), list(packages.paths), entries]
            key = sha256(json.dumps(made_from).encode()).hexdigest()[:16]
            what = {"key": key, "packages": sorted(chosen), "env": dict(plain), "private": list(private)}
            found[route] = what
    return found
