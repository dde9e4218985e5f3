"""What packages a function asks for, in its inline metadata or its project's lock, requirements or pyproject.toml."""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from lampyr import tomltext
from lampyr.build.scan import relative
from lampyr.types import Function, Problem, Project

LOCK, REQUIREMENTS, PYPROJECT = "uv.lock", "requirements.txt", "pyproject.toml"
# Beside a route file: what `uv lock --script` writes.
SCRIPT_LOCK = ".lock"
# A new number makes every set anew.
LAYOUT = "1"
# `-r more.txt`, `--constraint=limits.txt`, and what stands for a folder or a file of this machine.
_INCLUDED = re.compile(r"(?:-r|-c|--requirements?|--constraints?)[ =]\s*(\S+)")
_LOCAL = re.compile(r"(?:(?:-e|--editable)[ =]?\s*|[\w.\[\],-]+\s*@\s*)?((?:file:(?://)?)?[./][^\s;#]*|file:[^\s;#]+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The packages that `file`, relative to `root`, names; `locked`: exactly those of a lock, uv.lock or beside it.

    `key` is a hash of all that says which packages these are, and of the Python they are for. `line` is where the list
    begins. `source` is where in the project its own package lies. `local` are the other folders and files among them,
    whose content is part of the key, by name or else by path.
    """

    root: Path
    file: str
    key: str
    locked: bool = False
    line: int | None = None
    local: tuple[str, ...] = ()
    source: str | None = None


class Unfit(ValueError):
    """What is asked for cannot be had here, whatever an index holds: `problem` says why."""

    def __init__(self, file: str, line: int | None, message: str, hint: str) -> None:
        super().__init__(message)
        self.problem = Problem(file=file, line=line, message=message, hint=hint)


def of_function(project: Project, function: Function) -> Asked | None:
    """What the function's own metadata asks for; None where it leaves that to the project. Raises Unfit."""
    said = function.metadata
    if said is None:
        return None
    file = relative(project.root, function.file)
    if said.requires_python is not None:
        _check_python(said.requires_python, file, _line(function.file, "requires-python", said.line))
    if said.dependencies is None:
        return None
    listed = [" ".join(one.split()) for one in said.dependencies]
    local = _local_in(listed)
    line = _line(function.file, "dependencies", said.line)
    lock = f"{file}{SCRIPT_LOCK}"
    if (text := _text(project.root, lock)) != "":
        if stale := _read_lock(text, lock, tuple(listed))[0]:
            raise Unfit(file, line, f"{lock} is older than this file: {stale[1]}", f"run `uv lock --script {file}`")
        return Asked(root=project.root, file=file, key=_key("script lock", [text], project, ()), locked=True, line=line)
    key = _key("script", [json.dumps(sorted(listed)), said.uv], project, local)
    return Asked(root=project.root, file=file, key=key, line=line, local=tuple(local))


def of_project(project: Project) -> Asked | None:
    """What the project asks for: uv.lock before requirements.txt before pyproject.toml. None: nothing. Raises Unfit."""
    root = project.root
    text = _text(root, PYPROJECT)
    table = _table(text)
    said = told if isinstance(told := table.get("project"), dict) else {}
    requires = said.get("requires-python")
    if isinstance(requires, str):
        _check_python(requires, PYPROJECT, tomltext.line_of(text, ("project", "requires-python")))
    names = said.get("dependencies")
    listed = [one for one in names if isinstance(one, str)] if isinstance(names, list) else []
    computed = "dependencies" in (said.get("dynamic") or ())
    line = tomltext.line_of(text, ("project", "dependencies")) if listed else None
    # A project that is a package itself: its modules are imported from where they are written.
    source = "src" if "build-system" in table and (root / "src").is_dir() else None
    if (listed or computed) and (root / LOCK).exists():
        return _locked(project, text, line, listed, source)
    uv = json.dumps(table.get("tool", {}).get("uv"), sort_keys=True, default=str) if table else ""
    configured = [uv, _text(root, "uv.toml")]
    if (root / REQUIREMENTS).exists():
        return _listed(project, configured, source)
    if listed or computed:
        texts = [json.dumps(sorted(listed)), *configured]
        if computed:
            texts += [text, _text(root, "setup.py"), _text(root, "setup.cfg")]
        local = _local_in(listed)
        key = _key("pyproject", texts, project, local)
        return Asked(root=root, file=PYPROJECT, key=key, line=line, local=tuple(local), source=source)
    return None


# --- the ways to say it


def _locked(project: Project, pyproject: str, line: int | None, listed: list[str], source: str | None) -> Asked:
    text = _text(project.root, LOCK)
    stale, local = _read_lock(text, LOCK, tuple(listed))
    paths = [path for _, path in local]
    if stale:
        place = _line_naming(pyproject, stale[0]) or line
        raise Unfit(PYPROJECT, place, f"uv.lock is older than this file: {stale[1]}", "run `uv lock`")
    key = _key("lock", [text], project, paths)
    return Asked(
        root=project.root, file=LOCK, key=key, locked=True, local=tuple(name for name, _ in local), source=source
    )


@lru_cache(4)
def _read_lock(
    text: str, file: str, listed: tuple[str, ...]
) -> tuple[tuple[str, str] | None, tuple[tuple[str, str], ...]]:
    """A package that the lock does not have as it is asked for, with what is wrong; names and folders of local ones."""
    try:
        packages = tomltext.parse(text).get("package", [])
    except tomltext.TomlError as error:
        raise Unfit(file, error.line, f"not valid TOML: {error}", "have uv write it again") from None
    versions: dict[str, list[str]] = {}
    local: list[tuple[str, str]] = []
    for one in packages:
        versions.setdefault(one.get("name", ""), []).append(one.get("version", ""))
        source = one.get("source", {})
        where = next((source[kind] for kind in ("editable", "directory", "path", "virtual") if kind in source), ".")
        if where != ".":
            local.append((one.get("name", ""), where))
    return next(_stale(versions, listed), None), tuple(local)


def _stale(versions: dict[str, list[str]], listed: Iterable[str]) -> Iterator[tuple[str, str]]:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in listed:
        try:
            asked = Requirement(text)
        except InvalidRequirement as error:
            raise Unfit(PYPROJECT, None, f"{text!r} is no requirement: {error}", "see PEP 508") from None
        found = versions.get(canonicalize_name(asked.name))
        if found is None:
            yield asked.name, f"it has no {asked.name}"
        elif not any(asked.specifier.contains(one, prereleases=True) for one in found if one):
            yield asked.name, f"it has {asked.name} {found[0]}, and {text} is asked for"


def _listed(project: Project, configured: list[str], source: str | None) -> Asked | None:
    """requirements.txt and what it includes. None where no line of it asks for anything."""
    texts: list[str] = []
    local: list[str] = []
    asks = False
    pending, seen = [REQUIREMENTS], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        text = _text(project.root, name)
        texts += [name, text]
        rows = [row.strip() for row in text.splitlines() if row.strip() and not row.lstrip().startswith("#")]
        asks = asks or any(not row.startswith("-") or row.startswith(("-e", "--editable")) for row in rows)
        pending += [os.path.normpath(os.path.join(os.path.dirname(name), found)) for found in _included(rows)]
        local += [os.path.normpath(os.path.join(os.path.dirname(name), found)) for found in _local_in(rows)]
    if not asks:
        return None
    key = _key("requirements", [*texts, *configured], project, local)
    return Asked(root=project.root, file=REQUIREMENTS, key=key, local=tuple(local), source=source)


def _included(rows: Iterable[str]) -> Iterator[str]:
    for row in rows:
        found = _INCLUDED.match(row)
        if found and "://" not in found[1]:
            yield found[1]


def _local_in(rows: Iterable[str]) -> list[str]:
    """The folders and files of this machine among requirements."""
    found = (_LOCAL.match(row) for row in rows)
    return [re.sub(r"^file:(//)?", "", one[1]) for one in found if one]


# --- what a key is made of


def _key(kind: str, texts: Iterable[str], project: Project, local: Iterable[str]) -> str:
    here = f"{sys.implementation.cache_tag} {sysconfig.get_platform()} {sysconfig.get_config_var('SOABI')}"
    told = [LAYOUT, here, kind, *texts, *(line for one in local for line in _facts(_place(project, one)))]
    return sha256(json.dumps(told).encode()).hexdigest()[:16]


def _place(project: Project, path: str) -> Path:
    """Where a local package lies: what is outside the project is not in a copy of it."""
    outside = os.path.normpath(path).startswith("..")
    return (project.home if outside else project.root) / path


def _facts(path: Path) -> Iterator[str]:
    """The state of a file, or of all files of a folder: a copy of them has the same."""
    if path.is_file():
        yield _fact(path, path.name)
    for folder, below, files in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in ("__pycache__", "build"))
        for name in sorted(files):
            if not name.endswith(".pyc"):
                yield _fact(Path(folder, name), os.path.relpath(os.path.join(folder, name), path))


def _fact(path: Path, name: str) -> str:
    try:
        stat = path.stat()
    except OSError:
        return name
    return f"{name} {stat.st_size} {stat.st_mtime_ns}"


# --- reading


def _text(root: Path, name: str) -> str:
    """A file's text; nothing where there is none. Raises Unfit."""
    path = root / name
    try:
        if path.exists() and not path.is_file():
            raise Unfit(name, None, "not a regular file", "put a file in its place")
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Unfit(name, None, f"the file cannot be read: {error.strerror}", "check its permissions") from None


def _table(text: str) -> dict[str, Any]:
    try:
        return tomltext.parse(text)
    except tomltext.TomlError as error:
        raise Unfit(PYPROJECT, error.line, f"not valid TOML: {error}", "mend it; uv cannot read it either") from None


def _line(file: Path, word: str, begin: int) -> int:
    """Where in the block of metadata that begins in line `begin` a key is set."""
    try:
        rows = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return begin
    rows = rows[begin - 1 :]
    return begin + next((at for at, row in enumerate(rows) if re.match(rf"#\s*{word}\s*=", row)), 0)


def _line_naming(text: str, name: str) -> int | None:
    """The first line in which a quoted requirement begins with `name`."""
    pattern = re.compile(rf"[\"']{re.escape(name)}(?![\w.-])", re.IGNORECASE)
    return next((number for number, row in enumerate(text.splitlines(), 1) if pattern.search(row)), None)


def line_of(asked: Asked, said: str) -> tuple[str, int | None]:
    """The file and the line of the first requirement whose name `said`, what uv has said of it, has in it."""
    words = {_canonical(word.rstrip("._-")) for word in _NAME.findall(said)}
    file = PYPROJECT if asked.file == LOCK else asked.file
    path = asked.root / file
    try:
        rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return file, asked.line
    begin = (asked.line or 1) if file != REQUIREMENTS else 1
    for number, row in enumerate(rows[begin - 1 :], begin):
        if file == REQUIREMENTS:
            named = [one[0] for one in [_NAME.match(row.strip())] if one]
            named += [os.path.basename(path.rstrip("/")) for path in _local_in([row.strip()])]
        else:
            named = [one[1] for one in re.finditer(r"[\"']\s*([A-Za-z0-9][A-Za-z0-9._-]*)", row)]
        if any(_canonical(name) in words for name in named):
            return file, number
    return file, asked.line


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_python(wanted: str, file: str, line: int | None) -> None:
    """Raises Unfit where this Python is not one of `wanted`."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    ours = ".".join(map(str, sys.version_info[:3]))
    try:
        fits = SpecifierSet(wanted).contains(ours, prereleases=True)
    except InvalidSpecifier:
        hint = 'for example ">=3.11"'
        raise Unfit(file, line, f"requires-python = {wanted!r} is no range of versions", hint) from None
    if not fits:
        message = f"requires-python is {wanted}, and Lampyr runs on Python {ours}"
        raise Unfit(file, line, message, "install Lampyr into a Python of that range, or widen the range")
