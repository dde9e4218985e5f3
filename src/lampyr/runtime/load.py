"""Importing one route file: its module, its handlers, and where an import that failed went wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from itertools import islice
from types import CodeType, ModuleType
from typing import Any

from lampyr.runtime.hints import cure
from lampyr.runtime.later import import_later
from lampyr.runtime.stack import shortened

# sandbox.DATA_SLACK_BYTES, and where there are control groups node.limits.IMPORT_SLACK_MIB.
TOO_MUCH_MEMORY = "raise `memory`, or import less: an import may use that and 1024 MiB"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _FreshLoader(SourceFileLoader):
    """Compiles the project's own files at every import.

    Python trusts a cached .pyc whose source has the same size and the same second of modification (PEP 3147), so a
    quick second save would run old code.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Ours:
    """Finds the one package that Lampyr itself needs in a function (forms), where its environment is out of sight."""

    def __init__(self, path: list[str]) -> None:
        self._path = path

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, self._path) if name == "python_multipart" else None


def add_paths(root: str, project: Sequence[str], site: Sequence[str], *, isolated: bool = False) -> None:
    """Put the project's folders first and the environment's packages last on the import path.

    `isolated`: the project has an environment of its own, and what is installed beside Lampyr is not in it.
    """
    fresh = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_FreshLoader, [".py"]))

    def hook(path: str) -> Any:
        inside = path == root or path.startswith(root + "/")
        if not inside or "/site-packages" in path or "/.venv/" in path:
            raise ImportError
        return fresh(path)

    sys.path_hooks.insert(0, hook)
    for path in {root, *project, *sys.path}:  # not all of the cache, which is long and shared
        if path == root or path.startswith(root + "/"):
            sys.path_importer_cache.pop(path, None)
    # The project's packages come before those that happen to be installed beside Lampyr, after the standard library.
    ours = [index for index, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages"))]
    where = ours[0] if ours else len(sys.path)
    sys.path[where:where] = [path for path in site if path not in sys.path]
    if isolated:
        sys.meta_path.append(_Ours([path for path in sys.path if path not in site]))
        sys.path[:] = [path for path in sys.path if path in site or _is_stdlib(path)]
    sys.path[:0] = [path for path in project if path not in sys.path]


def _is_stdlib(path: str) -> bool:
    folder = os.path.dirname(os.__file__)
    return path in (folder, f"{folder}/lib-dynload") or path.endswith(".zip")


def project_files(root: str, before: int) -> list[str]:
    """The project's own files that have been imported: a change of one of them makes a snapshot stale.

    Only the modules behind the first `before` are looked at: the others have been imported by nobody of the project's,
    and looking at an object writes its reference count, 3 MB of shared memory in all.
    """
    modules = islice(reversed(sys.modules.values()), max(0, len(sys.modules) - before))
    files = [getattr(module, "__file__", None) for module in modules]
    return sorted({file for file in files if file and file.startswith(root + "/") and "/site-packages/" not in file})


def load(file: str, base: str) -> ModuleType:
    """Import the route file `file` as a submodule of the folders between `base` and it, so relative imports work.

    With it comes what its packages leave to their first call.
    """
    parts = file[len(base) + 1 : -len(".py")].split("/")
    name = ""
    for depth, part in enumerate(parts[:-1], 1):
        name = f"{name}.{_word(part)}" if name else _word(part)
        if "." not in part:
            try:
                import_module(name)
                continue
            except ModuleNotFoundError as error:
                if error.name != name:
                    raise
        package = ModuleType(name)
        package.__path__ = ["/".join([base, *parts[:depth]])]
        sys.modules[name] = package
    name = f"{name}.{parts[-1]}"
    spec = spec_from_file_location(name, file, loader=_FreshLoader(name, file))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    import_later()
    return module


def _word(folder: str) -> str:
    # A dot in a module name would be a package border: `[...all]` has three.
    return folder.replace(".", "·")


def handlers(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The callables named after a method. Raises TypeError naming one that cannot be called."""
    found: dict[str, Callable[..., Any]] = {}
    for method in METHODS:
        handler = getattr(module, method, None)
        if handler is None:
            continue
        if not callable(handler):
            raise TypeError(f"{method} is {type(handler).__name__}, not a function")
        found[method] = handler
    return found


class NotAsgi(TypeError):
    """`app` is there and is no ASGI application. `lampyr_hint` says what would make it one."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.lampyr_hint = hint


def application(module: ModuleType) -> Any:
    """What the module exports as `app`, None for nothing. Raises NotAsgi, for a WSGI application above all."""
    app = getattr(module, "app", None)
    if app is None or any(hasattr(module, method) for method in METHODS):
        return app
    kind = f"{type(app).__module__}.{type(app).__qualname__}"
    if not callable(app):
        raise NotAsgi(f"app is not an ASGI application: it is {kind}, which cannot be called", "call it otherwise")
    if _takes(app, 3):
        return app
    if _takes(app, 2):
        wrapped = "from a2wsgi import WSGIMiddleware, then app = WSGIMiddleware(app); or asgiref.wsgi.WsgiToAsgi(app)"
        raise NotAsgi(
            f"app is not an ASGI application: {kind} takes (environ, start_response), as WSGI has it", wrapped
        )
    raise NotAsgi(f"app is not an ASGI application: {kind} does not take (scope, receive, send)", "ASGI 3 is what runs")


def _takes(app: Any, count: int) -> bool:
    """Whether `app` can be called with so many arguments, as far as it says."""
    try:
        signature(app).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def failure(error: BaseException, root: str) -> dict[str, Any]:
    """What to tell about an import that raised: the user's own file and line where there is one, and the traceback."""
    file, line = None, None
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename.startswith(root + "/") and "/site-packages/" not in frame.filename:
                file, line = frame.filename, frame.lineno
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(own)]
    lines += traceback.format_exception_only(error)
    return {
        "file": file[len(root) + 1 :] if file and file.startswith(root + "/") else file,
        "line": line,
        "message": shortened(_message(error)),
        "hint": TOO_MUCH_MEMORY if isinstance(error, MemoryError) else cure(error),
        "traceback": shortened("".join(lines)),
    }


def _message(error: BaseException) -> str:
    if isinstance(error, NotAsgi):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


_RUNTIME = __file__.rpartition("/")[0] + "/"


def _ours(filename: str) -> bool:
    return filename.startswith((_RUNTIME, "<frozen importlib"))
