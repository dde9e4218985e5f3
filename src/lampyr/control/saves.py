"""What has been saved since the disk was last looked at, in development, and which functions that makes anew."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lampyr.control import tree
from lampyr.types import Function, Project


class Saves:
    """The project's files and those of `public/`: as they are `now`, and as they were when last deployed, or tried."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.now: tuple[tree.State, tree.State] = {}, {}
        self._tried: tuple[tree.State, tree.State] = {}, {}
        self._loaded: dict[str, set[str]] = {}  # by route
        self._generation: dict[str, int] = {}  # by route

    def look(self) -> bool:
        """Look at the disk; whether it is not what was last tried."""
        self.now = tree.look(self._root), tree.files_in(self._root / "public")
        return self.now != self._tried

    def tried(self) -> None:
        """What is on the disk now has been deployed, or cannot be."""
        self._tried = self.now

    def forget(self) -> None:
        """Whatever is there at the next look is new."""
        self._tried = {}, {}

    def loaded(self, route: str, files: Iterable[str] | None) -> None:
        """Which files of the project a function has imported; None where it has no snapshot any more."""
        if files is None:
            self._loaded.pop(route, None)
        else:
            self._loaded[route] = set(files)

    def age(self, project: Project) -> None:
        """Functions that loaded a file which was saved need a new snapshot; a file nobody has loaded ages all."""
        before, now = self._tried[0], self.now[0]
        touched = tree.changed(before, now)
        known = set().union(*self._loaded.values(), (str(function.file) for function in project.functions))
        everything = any(path not in known or not path.endswith(".py") for path in touched)
        everything = everything or any((path in before) != (path in now) for path in touched)
        for function in project.functions:
            loaded = self._loaded.get(function.route)
            if everything or loaded is None or touched & (loaded | {str(function.file)}):
                self._generation[function.route] = self._generation.get(function.route, 0) + 1

    def version(self, function: Function) -> str:
        """Another one than before where the function needs a new snapshot."""
        return f"{self._generation.get(function.route, 0)}/{function.settings!r}/{function.problem!r}"
