"""The secrets of a project without their values: where each is from, and which functions have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lampyr.build.environment import Environment
from lampyr.types import Function


def inventory(env: Environment, functions: Iterable[Function]) -> dict[str, Any]:
    """`secrets`: a list by name, in which `functions` is null where all have it; `may_call`: providers by route."""
    functions = list(functions)
    had = {one.route: env.of(one).keys() for one in functions}
    elsewhere = env.brokered.elsewhere if env.brokered else ()
    kept = {one.secret: one.name for one in elsewhere if one.secret}
    secrets = []
    for name in sorted(env.secrets):
        routes = [route for route, names in had.items() if name in names and name not in kept]
        secrets.append(
            {
                "name": name,
                "source": "vault" if name in env.vault else "environment",
                "functions": None if len(routes) == len(functions) else routes,
                "provider": kept.get(name),
            }
        )
    return {
        "secrets": secrets,
        "may_call": {one.route: [other.name for other in elsewhere if env.may_call(one, other)] for one in functions},
    }
