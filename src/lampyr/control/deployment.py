"""A deployment as one message: everything the gateway must know to serve a project."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lampyr.build import environment, shares, spec
from lampyr.config import Config
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
    shared = shares.of(project, config, env, packages)
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
        "budgets": list(config.budget.limit),
        "trusted_proxies": list(config.server.trusted_proxies),
        "shows_tracebacks": shows_tracebacks,
    }
