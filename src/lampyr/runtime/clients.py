"""The HTTP clients that functions use are taught something, also those that are imported in the midst of a call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Lesson = Callable[[Any], None]


def teach(lessons: Mapping[str, Lesson]) -> None:
    """Have each lesson given to the module of its name: now, or as soon as its code has run."""
    later = {}
    for name, lesson in lessons.items():
        if (module := sys.modules.get(name)) is not None:
            lesson(module)
        else:
            later[name] = lesson
    if later:
        sys.meta_path.insert(0, _Later(later))


class _Later:
    """A finder that finds what the others find, and has its loader give a lesson."""

    def __init__(self, lessons: dict[str, Lesson]) -> None:
        self._lessons = lessons

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._lessons:
            return None
        at = sys.meta_path.index(self)
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path[at + 1 :])
        spec = next((one for one in found if one is not None), None)
        loader: Any = spec.loader if spec is not None else None
        if loader is not None:
            try:  # the loader is of this module alone, and whoever asks for its kind is told the truth
                loader.exec_module = partial(self._exec, name, loader.exec_module)
            except AttributeError:
                pass  # of another make: that client says nothing
        return spec

    def _exec(self, name: str, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        if (lesson := self._lessons.pop(name, None)) is not None:
            lesson(module)
