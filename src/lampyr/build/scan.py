"""What a project says before any of its code has run: its functions, and everything that is wrong with them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from lampyr.build import conflicts, folders, routefile, strangers
from lampyr.build.folders import ROUTE_FILE
from lampyr.config import Config
from lampyr.core.segments import RESERVED, public_name
from lampyr.errors import ProjectError
from lampyr.runtime.load import METHODS
from lampyr.settings import did_you_mean
from lampyr.types import Function, Problem, Project

# Files that one warning names.
MOST_NAMED = 5
_HANDLER = re.compile(rf"^(?:async )?def ({'|'.join(METHODS)})\b".encode(), re.MULTILINE)
# Names of files that say nothing about the address they are meant for.
_GENERAL_NAMES = {"__init__", "handler", "index", "main", "page", "route", "router", "routes"}


def scan(root: Path, config: Config, home: Path | None = None) -> Project:
    """Read the syntax trees of all route files below `root`. Goes on after errors and reports them all.

    `home`: the project that `root` is a copy of.

    A function whose file has an error is listed all the same, with its first error as `problem`. Raises ProjectError
    where there is no project.
    """
    app, errors = app_folder(root)
    public = root / "public" if (root / "public").is_dir() else None
    functions: dict[str, Function] = {}
    warnings: list[Problem] = []
    others: list[Path] = []
    for found in sorted(folders.routes(app)):
        folder = app.joinpath(*found.parts)
        if found.problem:
            hint = "mend it, or put an underscore before its name: then it is left out"
            problem = Problem(file=relative(root, folder), line=None, message=f"the folder {found.problem}", hint=hint)
            (warnings if found.link else errors).append(problem)
            continue
        if found.other:
            others.append(folder / found.other)
            if misnamed := _misnamed(root, folder / found.other):
                warnings.append(misnamed)
            continue
        report = routefile.read(root, folder / ROUTE_FILE, found.parts, config)
        functions[relative(root, folder / ROUTE_FILE)] = report.function
        errors += report.errors
        warnings += report.warnings
    for files, problem in _conflicts(root, public, functions):
        errors.append(problem)
        for file in files:
            functions[file] = replace(functions[file], problem=functions[file].problem or problem)
    errors += _unknown_routes(functions, config)
    if public is not None and (files := conflicts.never_served(public)):
        warnings.append(_never_served(files))
    if not functions:
        warnings.append(_no_functions(root, app, others))
    return Project(
        root=root,
        home=home or root,
        app=app,
        public=public,
        functions=tuple(functions.values()),
        errors=tuple(errors),
        warnings=tuple(warnings),
    )


def relative(root: Path, file: Path) -> str:
    """The name of a project's file for people and JSON: from the root, with slashes, always encodable."""
    return file.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def app_folder(root: Path) -> tuple[Path, list[Problem]]:
    """The folder of a project's routes, and what is wrong with it. Raises ProjectError where there is none."""
    hint = "name the folder of a project, or make one: lampyr init DIR"
    places = (root / "app", root / "src" / "app")
    try:
        if not root.is_dir():
            raise ProjectError(f"{root.absolute()} is not a folder", hint)
        found = [folder for folder in places if folder.is_dir()]
    except OSError as error:
        message = f"{root.absolute()} cannot be read: {error.strerror}"
        raise ProjectError(message, "check the folder's permissions") from None
    if not found:
        looked = f"looked for {places[0].absolute()} and {places[1].absolute()}"
        if stranger := strangers.first(sorted(root.glob("*.py")), root):
            hint = _export(places[0], root, stranger)
        raise ProjectError(f"{root.absolute()} is not a project: {looked}", hint)
    if len(found) == 1:
        return found[0], []
    message = "the project has both app/ and src/app/"
    return found[0], [Problem(file="src/app", line=None, message=message, hint="keep one; app/ is read meanwhile")]


def _never_served(files: tuple[str, ...]) -> Problem:
    """Static files that a request can never mean."""
    named = ", ".join(f"public/{file}" for file in files[:MOST_NAMED])
    more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    message = f"never served, because /{RESERVED} is Lampyr's own: {named}{more}"
    return Problem(file=f"public/{RESERVED}", line=None, message=message, hint="move it elsewhere in public/")


def _misnamed(root: Path, file: Path) -> Problem | None:
    """A file with a handler that nobody can call: in other frameworks it would be a function by its own name."""
    try:
        handler = _HANDLER.search(file.read_bytes()) if file.is_file() else None
    except OSError:
        return None
    if handler is None:
        return None
    name = relative(root, file)
    place = file.parent if file.stem.lower() in _GENERAL_NAMES else file.with_suffix("")
    message = f"nobody can call its {handler[1].decode()}: only a file named {ROUTE_FILE} is a function"
    hint = f"move it to {relative(root, place / ROUTE_FILE)}, or into a folder whose name begins with an underscore"
    return Problem(file=name, line=None, message=message, hint=hint)


def _no_functions(root: Path, app: Path, others: list[Path]) -> Problem:
    name = relative(root, app)
    stranger = strangers.first(others, app.parent) or strangers.first(sorted(root.glob("*.py")), root)
    if stranger is None:
        message = f"{name}/ holds no {ROUTE_FILE}, so the project has no functions"
        return Problem(file=name, line=None, message=message, hint=f"add {name}/api/hello/{ROUTE_FILE}")
    message = f"nobody can call this {stranger.kind} application: no {ROUTE_FILE} exports it"
    hint = _export(app, root, stranger)
    return Problem(file=relative(root, stranger.file), line=stranger.line, message=message, hint=hint)


def _export(app: Path, root: Path, stranger: strangers.Application) -> str:
    file = app / "[[...path]]" / ROUTE_FILE
    where = relative(root, stranger.file)
    return f"to serve {where} unchanged, make {relative(root, file)} with this line: {stranger.imported}"


def _conflicts(
    root: Path, public: Path | None, functions: dict[str, Function]
) -> list[tuple[tuple[str, ...], Problem]]:
    """Every conflict once, with all the route files it concerns."""
    parts = {file: function.parts for file, function in functions.items()}
    found = [
        (files, Problem(file=files[-1], line=None, message=message, hint=hint))
        for files, message, hint in conflicts.between(parts)
    ]
    for file, static in conflicts.in_public(public, parts) if public else ():
        message = f"public/{static} and {file} are both at the path {public_name(parts[file])}"
        problem = Problem(file=file, line=None, message=message, hint="keep one of them, or move the other")
        found.append(((file,), problem))
    return found


def _unknown_routes(functions: dict[str, Function], config: Config) -> list[Problem]:
    """Settings for a function that does not exist: without this, a renamed one would lose its limits unnoticed."""
    known = {function.route for function in functions.values()}
    return [
        Problem(
            file=config.source.file,
            line=config.source.line("functions", route),
            message=f'settings for "{route}", and there is no such function',
            hint=did_you_mean(route, known) or f"functions: {', '.join(sorted(known)) or 'none'}",
        )
        for route in config.routes
        if route not in known and config.source
    ]
