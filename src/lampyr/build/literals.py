"""Settings and handlers of a route file, read from its syntax tree without running it (SPEC 2)."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lampyr.runtime.load import METHODS
from lampyr.settings import Setting, Wrong, did_you_mean, section

_DISPLAYS = (ast.JoinedStr, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.BinOp, ast.List, ast.Dict)
_FORGOTTEN = ("default", "handler")


class Finding(NamedTuple):
    """Something to tell about one line of a file."""

    line: int
    message: str
    hint: str = ""


@dataclass(slots=True)
class Module:
    """What a route file says about itself. `lines` are the lines of its settings.

    `handlers` are those methods that are written in it as functions.
    """

    methods: tuple[str, ...] = ()
    handlers: list[ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=list)
    asgi: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)


class _Binding(NamedTuple):
    """One name that running the module gives a value. `plain` is False below if, try, for, with at module level."""

    name: str
    node: ast.AST
    value: ast.expr | None
    plain: bool

    @property
    def line(self) -> int:
        return getattr(self.node, "lineno", 1)


def read(tree: ast.Module) -> Module:
    """What the module exports and sets, and what is wrong with that."""
    module = Module()
    bindings = list(_bindings(tree.body, True))
    _read_settings(module, bindings)
    _read_exports(module, bindings)
    _warn(module, bindings, tree)
    return module


def _bindings(body: Iterable[ast.stmt], plain: bool) -> Iterator[_Binding]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield _Binding(node.name, node, None, plain)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                yield _Binding(alias.asname or alias.name.partition(".")[0], node, None, plain)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _targets(target, node, node.value, plain)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _targets(node.target, node, node.value, plain)
        elif isinstance(node, ast.AugAssign):
            yield from _targets(node.target, node, None, plain)
        else:
            yield from _nested(node)


def _targets(target: ast.expr, node: ast.AST, value: ast.expr | None, plain: bool) -> Iterator[_Binding]:
    if isinstance(target, ast.Name):
        yield _Binding(target.id, node, value, plain)
        return
    for inner in ast.walk(target):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield _Binding(inner.id, node, None, plain)


def _nested(node: ast.stmt) -> Iterator[_Binding]:
    """Names bound by a compound statement and by the blocks inside it."""
    for target in (getattr(node, "target", None), *(item.optional_vars for item in getattr(node, "items", ()))):
        if target is not None:
            yield from _targets(target, node, None, False)
    for name in ("body", "orelse", "finalbody"):
        yield from _bindings(getattr(node, name, ()), False)
    for block in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield from _bindings(block.body, False)


def _read_settings(module: Module, bindings: Iterable[_Binding]) -> None:
    known = section("functions")
    for binding in bindings:
        if binding.name not in known or not _is_assignment(binding.node):
            continue
        module.lines[binding.name] = binding.line
        found = _setting(binding, known[binding.name])
        if isinstance(found, Finding):
            module.errors.append(found)
        else:
            module.settings[binding.name] = found


def _setting(binding: _Binding, setting: Setting) -> Any | Finding:
    """The value of a setting, or what is wrong with how it is written."""
    name, allowed = setting.name, f"allowed: {setting.allowed}"
    if not binding.plain:
        message = f"{name} is set conditionally, and settings are literals at the top level of the file; {allowed}"
        return Finding(binding.line, message, f"write {name} = ... once, unindented")
    try:
        found = setting.read(_literal(binding.value))
    except ValueError:
        message = f"{name} is computed, and settings are read without running the file; {allowed}"
        return Finding(binding.line, message, "write the value itself, or give the variable another name")
    return Finding(binding.line, *found) if isinstance(found, Wrong) else found


def _is_assignment(node: ast.AST) -> bool:
    """Whether binding the name was meant as a setting; `import secrets` and `def budget()` are the user's own."""
    return not isinstance(node, (ast.Import, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def _literal(value: ast.expr | None) -> Any:
    """The value of a literal. Raises ValueError for anything that would have to be run."""
    if value is None or any(isinstance(node, ast.BinOp) for node in ast.walk(value)):
        raise ValueError
    try:
        return ast.literal_eval(value)
    except (TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError from None


def _is_literal(value: ast.expr | None) -> bool:
    try:
        _literal(value)
    except ValueError:
        return False
    return True


def _read_exports(module: Module, bindings: list[_Binding]) -> None:
    exported = {}
    for binding in bindings:
        if binding.name not in METHODS and binding.name != "app":
            continue
        if binding.name == "app" and isinstance(binding.node, ast.Import):
            continue  # `import app.lib` binds the project's own package
        if finding := _not_callable(binding):
            module.errors.append(finding)
        exported[binding.name] = binding
    module.asgi = "app" in exported
    module.methods = tuple(method for method in METHODS if method in exported)
    for method in module.methods:
        if isinstance(node := exported[method].node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            module.handlers.append(node)
    if module.asgi and module.methods:
        message = f"the file exports both app and {', '.join(module.methods)}"
        hint = "keep the ASGI application or the handlers, or give one of them another name"
        module.errors.append(Finding(exported["app"].line, message, hint))
    if not exported:
        star = any(binding.name == "*" for binding in bindings)
        hint = "import them by name: from ... import GET" if star else f"define one of {', '.join(METHODS)}, or app"
        module.warnings.append(Finding(1, "the route has no handler", hint))


def _not_callable(binding: _Binding) -> Finding | None:
    name, node, value = binding.name, binding.node, binding.value
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return None if name == "app" or node.decorator_list else _wrong_signature(node)
    if not isinstance(value, _DISPLAYS) and not _is_literal(value):
        return None
    kind = "an ASGI application" if name == "app" else "a handler"
    message = f"{name} is a value, and {kind} must be something that can be called"
    hint = "write app = FastAPI(), or another application" if name == "app" else f"write def {name}(req): ..."
    return Finding(binding.line, message, hint)


def _wrong_signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Finding | None:
    taken = node.args
    positional = len(taken.posonlyargs) + len(taken.args) - len(taken.defaults)
    named = [arg.arg for arg, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if default is None]
    if positional <= 2 and not named:
        return None
    hint = f"parameters of the URL are in req.params: def {node.name}(req): ..."
    return Finding(node.lineno, f"{node.name} takes more than a handler is given: nothing, (req) or (req, ctx)", hint)


def _warn(module: Module, bindings: Iterable[_Binding], tree: ast.Module) -> None:
    """Warn of names that look as if they were meant for Lampyr, where the file itself does not use them."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    known = section("functions")
    for binding in bindings:
        name = binding.name
        if name in used or name in known or isinstance(binding.node, (ast.Import, ast.ImportFrom)):
            continue
        if name.upper() in METHODS and name not in METHODS:
            message = f"{name} is not a handler: their names are in capitals"
            module.warnings.append(Finding(binding.line, message, f'did you mean "{name.upper()}"?'))
        elif name in _FORGOTTEN:
            message = f"{name} is not used: a route file exports {', '.join(METHODS)} or app"
            module.warnings.append(Finding(binding.line, message, "name it after the method it answers"))
        elif _is_literal(binding.value) and (near := did_you_mean(name, known)):
            module.warnings.append(Finding(binding.line, f"{name} is not a setting", near))
