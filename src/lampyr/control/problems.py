"""What is wrong with the project that serves, as the log says it: errors every time, warnings once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lampyr.build import check
from lampyr.config import Config
from lampyr.runtime.channel import Message
from lampyr.types import Problem, Project


class Problems:
    """`say` puts a text into the log."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._warned: frozenset[Problem] = frozenset()
        self._unshared: dict[str, frozenset[Problem]] = {}  # by route

    def known(self, project: Project) -> None:
        """Its warnings have been said."""
        self._warned = frozenset(project.warnings)

    def changed(self, project: Project) -> None:
        """Every error, and the warnings that were not there before."""
        for problem in project.errors:
            self._say(f"error: {problem}")
        for problem in project.warnings:
            if problem not in self._warned:
                self._say(f"warning: {problem}")
        self.known(project)

    def imported(self, route: str, facts: Message) -> None:
        """What instances of a function cannot share, once, until its import is without it."""
        found = frozenset(check.warnings_of(facts, Path(facts["root"])))
        for problem in sorted(found.difference(*self._unshared.values()), key=lambda one: (one.file, one.line or 0)):
            self._say(f"warning: {problem}")
        self._unshared[route] = found

    def restart(self, before: Config, settings: Config) -> None:
        """Sockets and models are made once, when the server starts."""
        if _at_start(settings) != _at_start(before):
            what = "[server] or [providers] has changed; who listens and which model answers is settled at the start"
            self._say(f"warning: {what}\nhint: restart `lampyr dev`")


def _at_start(settings: Config) -> tuple[object, ...]:
    server = settings.server
    limits = server.max_connections, server.max_concurrency, server.ledger_days
    return server.host, server.port, limits, settings.providers
