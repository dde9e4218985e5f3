"""Which packages each function of a project imports: those it asks for, installed once, or those that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lampyr.build import dependencies, packages
from lampyr.build.dependencies import Asked, Unfit
from lampyr.build.packages import Packages
from lampyr.build.sets import PROJECT, Sets, state_of
from lampyr.build.uv import Uv, UvError, variables
from lampyr.types import Function, Problem, Project


@dataclass(frozen=True, slots=True)
class Supply:
    """`packages` by route. A function that cannot have what it asks for has it as its problem in `project`.

    `problems` are these; `missing` is what has to be installed before, by key.
    """

    project: Project
    problems: tuple[Problem, ...]
    packages: Mapping[str, Packages]
    missing: Mapping[str, Asked]


class Supplier:
    """Looks for what functions ask for, and installs it. `process` is the environment that has the way to an index.

    `tell` hears what is being done while it installs. `failed` are problems of earlier tries, by key: they are not
    tried again. `there` is the environment that was looked at last; `apart`: what that has counts for nothing, as it is
    not the server's.
    """

    def __init__(
        self, state: Path, process: Mapping[str, str], tell: Callable[[str], None], *, apart: bool = False
    ) -> None:
        self._state = state
        self._apart = apart
        self._sets = Sets(state)
        self._tell = tell
        self._installs = ""
        self._uv = Uv(variables(process), self._hear)
        self.failed: dict[str, Problem] = {}
        self.there: tuple[Packages, dict[str, int]] | None = None

    def has_news(self) -> bool:
        """Whether something has failed and somebody has meanwhile installed something by himself."""
        return bool(self.failed) and self.there is not None and state_of(self.there[0]) != self.there[1]

    def look(self, project: Project) -> Supply:
        """What there is for the project, and what is missing. Installs nothing."""
        there = packages.of(project)
        self.there = there, state_of(there)
        of_project: list[Asked | Unfit | None] = []
        found: dict[str, Packages] = {}
        missing: dict[str, Asked] = {}
        functions: list[Function] = []
        problems: dict[Problem, None] = {}
        used: set[str] = set()
        known: dict[str, Packages | None] = {}
        for function in project.functions:
            found[function.route] = there
            asked = _asked(project, function, of_project)
            problem = None
            if isinstance(asked, Unfit):
                problem = asked.problem
            elif asked is not None:
                if asked.key not in known:
                    known[asked.key] = self._known(asked, there, project)
                its = known[asked.key]
                if its is not None:
                    found[function.route] = its
                    used.add(asked.key)
                elif (problem := self.failed.get(asked.key)) is None and function.problem is None:
                    missing[asked.key] = asked
            if problem is not None:
                problems[problem] = None
                function = replace(function, problem=function.problem or problem)
            functions.append(function)
        if project.root == project.home:
            self._sets.sweep(used, self._state / "deployments")
        judged = replace(project, functions=tuple(functions), errors=(*project.errors, *problems))
        return Supply(judged, tuple(problems), found, missing)

    def _known(self, asked: Asked, there: Packages, project: Project) -> Packages | None:
        """Where what is asked for is; None where it has to be installed."""
        venv = self._sets.find(asked)
        if venv is not None:
            self._sets.mark(asked, PROJECT if project.root == project.home else project.root.name)
            return packages.of_set(project, venv, asked.source)
        if self._apart or not (self._sets.is_here(asked, there) or self._sets.look(asked, there, self._uv)):
            return None
        return there

    def install(self, missing: Mapping[str, Asked]) -> None:
        """Install what `look` has found missing. What goes wrong is in `failed` then. Raises StateError."""
        for key, asked in missing.items():
            self._installs = asked.file
            self._tell(f"installing the packages of {asked.file}")
            try:
                self._sets.make(asked, self._uv)
            except UvError as error:
                self.failed[key] = _problem(asked, error)
            finally:
                self._installs = ""

    def _hear(self, line: str) -> None:
        if self._installs:  # while it only looks, nobody waits for what it says
            self._tell(f"{line}, for {self._installs}")  # terminals cut what is behind

    def get(self, project: Project) -> Supply:
        """All that can be had. Raises StateError."""
        supply = self.look(project)
        if not supply.missing:
            return supply
        self.install(supply.missing)
        return self.look(project)

    def stop(self) -> None:
        """End what is being installed; by another thread."""
        self._uv.stop()


def _asked(project: Project, function: Function, of_project: list[Asked | Unfit | None]) -> Asked | Unfit | None:
    """`of_project` holds what the project asks for, once somebody has wanted to know."""
    try:
        own = dependencies.of_function(project, function)
    except Unfit as error:
        return error
    if own is not None:
        return own
    if not of_project:
        try:
            of_project.append(dependencies.of_project(project))
        except Unfit as error:
            of_project.append(error)
    return of_project[0]


def _problem(asked: Asked, error: UvError) -> Problem:
    file, line = dependencies.line_of(asked, error.message)
    text = error.message.replace(f"file://{asked.root}/", "").replace(f"{asked.root}/", "")
    again = "uv sync" if asked.file == dependencies.LOCK else f"uv pip install -r {asked.file}"
    hint = error.hint or f"`{again}` in the project shows all that uv says"
    return Problem(file=file, line=line, message=f"its packages cannot be installed: {text}", hint=hint)
