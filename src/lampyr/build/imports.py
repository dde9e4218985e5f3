"""Which packages a function imports, read from the syntax trees of its route file and of the project's own modules."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path


def packages_of(file: Path, project_paths: Sequence[str], site: Sequence[str]) -> dict[str, int]:
    """The top-level packages outside the project that importing `file` imports, and the bytes of their files.

    Only what is imported at once counts, not what a handler imports. A file that cannot be read imports nothing.
    """
    found: dict[str, int] = {}
    seen: set[Path] = set()
    files = [file]
    while files:
        path = files.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _imported(path):
            top = name.partition(".")[0]
            inner = _module_file(name, project_paths)
            if inner is not None:
                files.append(inner)
            elif top not in sys.stdlib_module_names and top != "lampyr" and (weight := _weight(top, tuple(site))):
                found[top] = weight
    return found


def _imported(file: Path) -> Iterator[str]:
    """Modules by their whole names, relative ones left out as far as they stay in the folder of the route."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def _module_file(name: str, project_paths: Sequence[str]) -> Path | None:
    """The project's own file for a module."""
    for folder in project_paths:
        place = Path(folder, *name.split("."))
        for file in (place.with_name(place.name + ".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


@lru_cache(1024)
def _weight(package: str, site: tuple[str, ...]) -> int:
    """The bytes of a package's files; 0 where it is not installed, or no folder with an `__init__`."""
    for folder in site:
        place = os.path.join(folder, package)
        if os.path.isfile(os.path.join(place, "__init__.py")):
            sizes = (os.path.getsize(os.path.join(at, one)) for at, _, files in os.walk(place) for one in files)
            return sum(sizes)
    return 0
