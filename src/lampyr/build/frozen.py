"""Values that an import makes once for all instances: `TOKEN = uuid4()` at the top level is one token for everybody.

Read from syntax trees, so that the line can be named. What generators draw later is no concern of this: instances
reseed them (runtime.reseed).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from lampyr.build.literals import Finding

RESTORE = "in a function decorated with @after_restore"
AFTER_RESTORE = frozenset({"lampyr.after_restore", "snapshot_restore_py.register_after_restore"})

_DRAWN = {
    "uuid": "uuid1 uuid4 uuid6 uuid7",
    "secrets": "choice randbelow randbits token_bytes token_hex token_urlsafe",
    "os": "urandom getrandom",
    "ssl": "RAND_bytes",
    "random": "betavariate choice choices expovariate gauss getrandbits lognormvariate normalvariate paretovariate "
    "randbytes randint random randrange sample shuffle triangular uniform vonmisesvariate weibullvariate",
    "numpy.random": "beta binomial bytes choice exponential gamma integers normal permutation poisson rand randint "
    "randn random random_sample shuffle standard_normal uniform",
    "torch": "normal rand randint randn randperm",
}
DRAWN = frozenset(f"{module}.{name}" for module, names in _DRAWN.items() for name in names.split())
TIMES = frozenset({
    "datetime.date.today", "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow",
    "time.monotonic", "time.monotonic_ns", "time.time", "time.time_ns",
})  # fmt: skip
SEEDS = {
    "random.seed": "random.Random(seed)",
    "numpy.random.seed": "numpy.random.default_rng(seed)",
    "torch.manual_seed": "torch.Generator().manual_seed(seed)",
}
_WORDS = re.compile(
    rb"uuid|secrets|random|getpid|RAND_bytes|time|torch"
)  # quicker than a syntax tree, and all need one
# What these make draws like the module they are of.
GENERATORS = {
    "random.Random": "random",
    "random.SystemRandom": "random",
    "numpy.random.RandomState": "numpy.random",
    "numpy.random.default_rng": "numpy.random",
}


@lru_cache(512)  # in development most files are read again as they were
def read(source: bytes) -> tuple[Finding, ...]:
    """What is frozen in a module with this source. Nothing for what cannot be parsed: its import says so."""
    if not _WORDS.search(source):
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        return tuple(dict.fromkeys(_Module(tree).findings()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


class _Run(NamedTuple):
    """A call that an import makes, and what keeps its value: the target of an assignment or a parameter."""

    call: ast.Call
    keeper: str | None


class _Module:
    """One syntax tree and what its names stand for."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._names = dict(_imported(tree))
        self._functions = {
            node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and (of := self._made(node.value)):
                self._names.update({one.id: of for one in node.targets if isinstance(one, ast.Name)})

    def findings(self) -> Iterator[Finding]:
        cured = set(self._set_after_restore())
        for call, keeper in _run_by(self._tree.body):
            name = self._name(call.func)
            if keeper is not None and keeper.partition(".")[0].partition("[")[0] in cured:
                continue
            if name in DRAWN:
                yield _drawn(call.lineno, name, keeper)
            elif name in TIMES and keeper is not None:
                message = f"{keeper} is the time of the import ({name}), the same in every instance"
                yield Finding(call.lineno, message, f"ask for it in the handler, or {RESTORE}")
            elif name == "os.getpid" and keeper is not None:
                message = f"{keeper} is made of the snapshot's process id, the same in every instance"
                yield Finding(call.lineno, message, f"ask for it in the handler, or {RESTORE}")
            elif name in SEEDS and call.args:
                message = f"{name} has no effect at import: every instance is seeded anew"
                yield Finding(call.lineno, message, f"for numbers that are equal everywhere use {SEEDS[name]}")
            elif keeper is not None and (through := self._draw_inside(call, set())):
                yield _drawn(call.lineno, through, keeper)

    def _name(self, node: ast.expr) -> str:
        """The full name of what an expression refers to, through imports and aliases; "" where that is unknown."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            owner = self._name(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return self._made(node) if isinstance(node, ast.Call) else ""

    def _made(self, call: ast.Call) -> str:
        """The module whose functions a new generator has as methods; with a seed, its draws are somebody's choice."""
        return "" if call.args or call.keywords else GENERATORS.get(self._name(call.func), "")

    def _draw_inside(self, call: ast.Call, seen: set[str]) -> str:
        """The draw that a function of the same file makes when it is called, or ""."""
        if not isinstance(call.func, ast.Name) or call.func.id in seen or call.func.id not in self._functions:
            return ""
        seen.add(call.func.id)
        inner = [one.call for one in _run_by(self._functions[call.func.id].body)]
        direct = (name for one in inner if (name := self._name(one.func)) in DRAWN)
        return next(direct, "") or next((name for one in inner if (name := self._draw_inside(one, seen))), "")

    def _set_after_restore(self) -> Iterator[str]:
        """The names that hooks give new values in every instance."""
        hooks = [one for one in self._functions.values() if any(self._is_hook(with_) for with_ in one.decorator_list)]
        calls = (node for node in ast.walk(self._tree) if isinstance(node, ast.Call) and self._is_hook(node.func))
        named = (call.args[0].id for call in calls if call.args and isinstance(call.args[0], ast.Name))
        hooks.extend(self._functions[name] for name in named if name in self._functions)
        for node in (node for hook in hooks for node in ast.walk(hook)):
            if isinstance(node, ast.Global):
                yield from node.names
            elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
                yield ast.unparse(node).partition(".")[0].partition("[")[0]

    def _is_hook(self, node: ast.expr) -> bool:
        return self._name(node) in AFTER_RESTORE


def _drawn(line: int, name: str, keeper: str | None) -> Finding:
    what = f"{keeper} is drawn at import ({name})" if keeper else f"{name} draws at import"
    return Finding(line, f"{what}: the same in every instance", f"draw it in the handler, or {RESTORE}")


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _run_by(body: Iterable[ast.AST], keeper: str | None = None) -> Iterator[_Run]:
    """The calls that running these statements makes, without those in the functions that they define."""
    for node in body:
        if isinstance(node, ast.Call):
            yield _Run(node, keeper)
        yield from _run_by(_parts(node), _keeper(node) or keeper)


def _parts(node: ast.AST) -> Iterable[ast.AST]:
    """What of a node is run when it is run."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return (*node.decorator_list, *_defaults(node.name, node.args))
    if isinstance(node, ast.Lambda):
        return _defaults("lambda", node.args)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith(("TYPE_CHECKING", "'__main__'")):
        return node.orelse
    return ast.iter_child_nodes(node)


def _defaults(name: str, arguments: ast.arguments) -> Iterator[ast.AST]:
    """The defaults of a function's parameters, as assignments to them."""
    positional = [*arguments.posonlyargs, *arguments.args]
    without = len(positional) - len(arguments.defaults)
    parameters = [*positional[without:], *arguments.kwonlyargs]
    for parameter, default in zip(parameters, [*arguments.defaults, *arguments.kw_defaults], strict=True):
        if default is not None:
            yield ast.Assign([ast.Name(f"{name}({parameter.arg}=)", ast.Store())], default)


def _keeper(node: ast.AST) -> str | None:
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    return ast.unparse(node.target) if isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) else None
