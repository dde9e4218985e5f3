"""Importing a project into the process of its tests, and leaving that process as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from lampyr.runtime import context, load, snapstart  # noqa: F401  registers itself
from lampyr.runtime.program import Program
from lampyr.types import Function

# The threads of one client, for sync handlers.
THREADS = 8


class Place:
    """What importing a project changes in this process, and how it was before."""

    def __init__(self, root: Path, base: Path, variables: Mapping[str, str]) -> None:
        self._root = root
        self._base = str(base)
        self._environ = dict(os.environ)
        self._path = list(sys.path)
        self._hooks = list(sys.path_hooks)
        self._modules = dict(sys.modules)
        if "app" in sys.modules and not self._is_ours(sys.modules["app"]):
            self._set_aside("app")
        os.environ.update(variables)
        load.add_paths(str(root), list(dict.fromkeys((self._base, str(root)))), [])

    def load(self, function: Function, keepalive_s: float) -> Program:
        """Import a route file, and run the hooks it registers as a snapshot and an instance would."""
        known = {name: len(hooks) for name, hooks in context.hooks.items()}
        module = load.load(str(function.file), self._base)
        app = load.application(module)
        program = Program(str(function.file), load.handlers(module), app, THREADS, keepalive_s, function.route)
        for name in ("before_snapshot", "after_restore"):
            context.run_hooks(name, slice(known[name], None))
            del context.hooks[name][known[name] :]
        return program

    def leave(self) -> None:
        """Put everything back. What the tests themselves had imported stays imported: they may have patched it."""
        added = [name for name, module in list(sys.modules.items()) if self._is_ours(module)]
        for name in added:
            if name not in self._modules:
                del sys.modules[name]
        for name, module in self._modules.items():
            sys.modules.setdefault(name, module)
        sys.path[:] = self._path
        sys.path_hooks[:] = self._hooks
        sys.path_importer_cache.clear()
        os.environ.clear()
        os.environ.update(self._environ)

    def _set_aside(self, top: str) -> None:
        """Another project, whose modules have the same names."""
        for name in [name for name in sys.modules if name.partition(".")[0] == top]:
            del sys.modules[name]

    def _is_ours(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        try:
            places = [file] if file else list(getattr(module, "__path__", ()))
        except KeyError:  # a namespace package whose parent is gone
            return False
        ours = str(self._root) + os.sep
        return any(str(place).startswith(ours) and "site-packages" not in str(place) for place in places)
