"""One route file: its handlers, its settings, its own dependencies, and everything wrong with them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from tokenize import detect_encoding
from typing import Any, NamedTuple

from lampyr.build import conflicts, literals, metadata
from lampyr.build.literals import Finding, Module
from lampyr.config import Config
from lampyr.core.segments import Kind, in_url, public_name
from lampyr.settings import defaults
from lampyr.types import Function, Metadata, Problem, Settings


class Report(NamedTuple):
    """What was read: the function, complete even where the file has errors."""

    function: Function
    errors: list[Problem]
    warnings: list[Problem]


def read(root: Path, file: Path, parts: tuple[str, ...], config: Config) -> Report:
    """Read the route file of the folders `parts`. Never raises for what is in the file."""
    name = file.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()
    route = public_name(parts)
    module, own = _module(file)
    settings = _resolve(module, config, route)
    module.warnings += _expected(module.handlers, parts)
    errors = [
        Problem(file=name, line=line, message=message, hint=hint) for line, message, hint in _sorted(module.errors)
    ]
    if wrong := conflicts.malformed(parts):
        errors.insert(0, Problem(file=name, line=None, message=wrong[0], hint=wrong[1]))
    notes = [
        Problem(file=name, line=line, message=message, hint=hint) for line, message, hint in _sorted(module.warnings)
    ]
    function = Function(
        route=route,
        parts=parts,
        file=file,
        methods=module.methods,
        asgi=module.asgi,
        settings=settings,
        problem=errors[0] if errors else None,
        metadata=own,
    )
    return Report(function, errors, notes)


def _expected(handlers: Iterable[ast.FunctionDef | ast.AsyncFunctionDef], parts: tuple[str, ...]) -> Iterator[Finding]:
    """Arguments that are called like a parameter of the URL: other frameworks would hand it over there."""
    params = {segment.text for segment in in_url(parts) if segment.kind is not Kind.STATIC}
    for handler in handlers:
        taken = [*handler.args.posonlyargs, *handler.args.args]
        for argument, given, usual in zip(taken, ("request", "context"), ("req", "ctx"), strict=False):
            if argument.arg in params and argument.arg not in (given, usual) and not handler.decorator_list:
                message = f'{handler.name} is given the {given} as "{argument.arg}", not the parameter of the URL'
                hint = f'def {handler.name}(req): ... req.params["{argument.arg}"]'
                yield Finding(argument.lineno, message, hint)


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.line)


def _module(file: Path) -> tuple[Module, Metadata | None]:
    """The module, and what it says of its dependencies."""
    try:
        if not file.is_file():
            return Module(errors=[Finding(1, "not a regular file", "put a file in its place")]), None
        source = file.read_bytes()
    except OSError as error:
        return Module(errors=[Finding(1, f"the file cannot be read: {error.strerror}", "check its permissions")]), None
    try:
        module = literals.read(_parse(source))
    except SyntaxError as error:
        where = f"look at column {error.offset}, and at what is still open before it" if error.offset else ""
        hint = where or "save the file as text in UTF-8"
        return Module(errors=[Finding(error.lineno or 1, f"syntax error: {error.msg}", hint)]), None
    except (RecursionError, MemoryError):
        return Module(errors=[Finding(1, "the file is nested too deeply to be read", "take it apart")]), None
    try:
        own = metadata.read(source.decode("utf-8-sig", "replace"))
    except metadata.MetadataError as error:
        module.errors.append(Finding(error.line, str(error), "see https://peps.python.org/pep-0723/"))
        return module, None
    return module, own


def _parse(source: bytes) -> ast.Module:
    """The syntax tree. Raises SyntaxError, also for a NUL and for bytes that are no text."""
    if b"\0" in source:
        raise SyntaxError("a NUL byte", ("", source[: source.index(b"\0")].count(b"\n") + 1, None, None))
    try:
        source.decode(detect_encoding(BytesIO(source).readline)[0])
    except UnicodeDecodeError as error:  # Python would let it pass in a comment, some versions of it
        line = source[: error.start].count(b"\n") + 1
        raise SyntaxError(
            "the file is not in its encoding, which is UTF-8 unless it says otherwise", ("", line, None, None)
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _resolve(module: Module, config: Config, route: str) -> Settings:
    """Defaults of the runtime, then the project's, then the project's for this function, then the file's (SPEC 2)."""
    chosen: dict[str, Any] = {**config.functions, **config.routes.get(route, {}), **module.settings}
    runtime = chosen.get("runtime", "standard")
    edge = runtime == "edge"
    values = defaults("functions", edge=edge) | chosen
    if not edge:
        if "first_byte_timeout" in module.settings:
            message = (
                'first_byte_timeout has no effect: it is for runtime = "edge", the standard runtime has max_duration'
            )
            hint = 'write max_duration in its place, or runtime = "edge"'
            module.warnings.append(Finding(module.lines["first_byte_timeout"], message, hint))
        values["first_byte_timeout"] = None
    if values["min_instances"] > values["max_instances"]:
        line = max(module.lines.get("min_instances", 1), module.lines.get("max_instances", 1))
        message = f"min_instances = {values['min_instances']} is more than max_instances = {values['max_instances']}"
        module.errors.append(Finding(line, message, "min_instances may be up to max_instances"))
    return Settings(**values)
