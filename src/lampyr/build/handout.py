"""What the vault process makes of an environment: what all our processes may know, and what only some may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lampyr.build import environment
from lampyr.build.environment import Environment
from lampyr.build.inventory import inventory
from lampyr.types import Problem, Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """No value in it is secret. `plain` is what every function has, `private` names what only some have; `env_js` is
    what browsers see, and `errors` and `warnings` are those of the environment; `inventory` is for the console.
    """

    plain: Mapping[str, str]
    private: tuple[str, ...]
    env_js: str
    inventory: Mapping[str, Any]
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @classmethod
    def told(cls, message: Mapping[str, Any]) -> Common:
        """What `message` has made a message of."""
        problems = {name: tuple(Problem(**one) for one in message[name]) for name in ("errors", "warnings")}
        return cls(
            plain=message["plain"],
            private=tuple(message["private"]),
            env_js=message["env_js"],
            inventory=message["inventory"],
            **problems,
        )

    def message(self) -> dict[str, Any]:
        """For another process of ours."""
        return asdict(self)

    def judge(self, project: Project) -> Project:
        """The project with these problems added to its own."""
        errors, warnings = (*project.errors, *self.errors), (*project.warnings, *self.warnings)
        return replace(project, errors=errors, warnings=warnings)


def common(env: Environment, project: Project) -> Common:
    """What may be known of `env`. Problems of the project itself are not in it."""
    judged = env.judge(replace(project, errors=(), warnings=()))
    return Common(
        plain=env.of_nobody(),
        private=tuple(env.private),
        env_js=environment.env_js(env.public),
        inventory=inventory(env, project.functions),
        errors=judged.errors,
        warnings=judged.warnings,
    )


def private(env: Environment, project: Project) -> dict[str, Any]:
    """For the gateway: what each function gets, and what is masked."""
    return {
        "env": {function.route: env.of(function) for function in project.functions},
        "secrets": sorted({env.values[name] for name in env.secrets if env.values.get(name)}),
    }
