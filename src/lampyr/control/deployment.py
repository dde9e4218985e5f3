"""A deployment as one message: everything the gateway must know to serve a project."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from lampyr.build import environment, imports, spec
from lampyr.config import Config
from lampyr.core import sharing
from lampyr.runtime.channel import Message
from lampyr.types import Project


def compose(
    id: str,
    project: Project,
    config: Config,
    env: environment.Environment,
    packages: environment.Packages,
    *,
    shows_tracebacks: bool,
    version_of: Any,
) -> Message:
    """The message. `version_of(function)` names a state of its code: an equal version keeps the snapshot it has."""
    shared = _shared(project, config, env, packages)
    functions = [
        {
            "route": function.route,
            "parts": function.parts,
            "file": str(function.file),
            "methods": function.methods,
            "asgi": function.asgi,
            "settings": asdict(function.settings),
            "problem": asdict(function.problem) if function.problem else None,
            "spec": {**spec.of(function, project, config, packages), "shared": shared.get(function.route)},
            "env": env.of(function),
            "version": version_of(function),
        }
        for function in project.functions
    ]
    return {
        "id": id,
        "functions": functions,
        "public": str(project.public) if project.public else None,
        "secrets": sorted({env.values[name] for name in env.secrets if env.values.get(name)}),
        "env_js": environment.env_js(env.public),
        "trusted_proxies": list(config.server.trusted_proxies),
        "shows_tracebacks": shows_tracebacks,
    }


def _shared(
    project: Project, config: Config, env: environment.Environment, packages: environment.Packages
) -> dict[str, Message]:
    """By route, the shared snapshot that a function's own is forked from (see node.snapshots.Base.parent_of).

    Its key is everything it was made from: packages, variables, and the project's own folder as its room shows it.
    """
    specs = {one.route: spec.of(one, project, config, packages) for one in project.functions if not one.problem}
    uses = {
        one.route: imports.packages_of(one.file, specs[one.route]["project_paths"], packages.paths)
        for one in project.functions
        if not one.problem
    }
    weights = {name: size for used in uses.values() for name, size in used.items()}
    plain = env.of_nobody()
    private = sorted(env.values.keys() - plain.keys())
    entries = sorted((entry.name, entry.inode()) for entry in os.scandir(project.root))
    found: dict[str, Message] = {}
    for route, chosen in sharing.plan({route: frozenset(used) for route, used in uses.items()}, weights).items():
        if chosen:
            made_from = [sorted(chosen), sorted(plain.items()), private, list(packages.paths), entries]
            key = sha256(json.dumps(made_from).encode()).hexdigest()[:16]
            what = {"key": key, "packages": sorted(chosen), "env": plain, "private": private}
            found[route] = what
    return found
