"""A deployment as one message: everything the gateway must know to serve a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from lampyr.build import shares, spec
from lampyr.build.handout import Common
from lampyr.build.packages import Packages
from lampyr.config import Config
from lampyr.runtime.channel import Message
from lampyr.types import Function, Project


def compose(
    id: str,
    project: Project,
    config: Config,
    common: Common,
    packages: Mapping[str, Packages],
    *,
    broker: str | None,
    shows_tracebacks: bool,
    version_of: Callable[[Function], str],
) -> Message:
    """The message, without what is secret: that goes along in a parcel (build.handout.private).

    `broker` is its host and port, where there is one. `version_of(function)` names a state of its code: an equal
    version keeps the snapshot it has.
    """
    shared = shares.of(project, config, common.plain, common.private, packages)
    reaches = {"broker": broker} if broker else {}
    functions = [
        {
            "route": function.route,
            "parts": function.parts,
            "file": str(function.file),
            "methods": function.methods,
            "asgi": function.asgi,
            "settings": asdict(function.settings),
            "problem": asdict(function.problem) if function.problem else None,
            "spec": {
                **spec.of(function, project, config, packages[function.route]),
                "shared": shared.get(function.route),
                **reaches,
            },
            "version": f"{version_of(function)} {' '.join(packages[function.route].paths)}",
        }
        for function in project.functions
    ]
    return {
        "id": id,
        "functions": functions,
        "public": str(project.public) if project.public else None,
        "env_js": common.env_js,
        "budgets": list(config.budget.limit),
        "trusted_proxies": list(config.server.trusted_proxies),
        "shows_tracebacks": shows_tracebacks,
    }


def terms(project: Project, config: Config) -> Message:
    """What calls to providers cost, and what may be spent on them: for the broker."""
    return {
        "budgets": list(config.budget.limit),
        "budgets_of": [[one.route, one.settings.budget] for one in project.functions],
        "prices": {model: asdict(price) for model, price in config.prices.items()},
    }
