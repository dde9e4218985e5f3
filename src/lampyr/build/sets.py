"""Package sets: virtual environments in the state directory, each made once and never changed, for who asks for it.

packages/<key>/              one set; its name is a hash of what was asked for
packages/<key>.for/<name>    who uses it: a deployment, or the project's folder as it is
packages/<key>.here          what was asked for is in an environment that is there already: which, and in what state
packages/.making-.../        a set that is being made, or the rest of one that somebody has killed
packages/.lock               held by whoever makes one
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lampyr.build.dependencies import LOCK, Asked
from lampyr.build.packages import Packages
from lampyr.build.uv import Uv, UvError
from lampyr.errors import StateError

FOLDER, MAKING = "packages", ".making-"
# The mark of the project's own folder.
PROJECT = "project"
# Instances of a function may import from its set for a while after nothing new does.
KEPT_UNUSED_S = 24 * 3600.0
# Nobody gets Lampyr from an index: functions have the one that serves them.
NOT_OURS = "lampyr\n"


class Sets:
    """The package sets below a state directory, for the deployments there."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()
        self._folder = self._state / FOLDER

    def find(self, asked: Asked) -> Path | None:
        """The environment that was made for it."""
        path = self._folder / asked.key
        return path if path.is_dir() else None

    def mark(self, asked: Asked, user: str) -> None:
        """Note that `user` needs the set."""
        marks = self._folder / f"{asked.key}.for"
        try:
            if not (marks / user).exists():
                marks.mkdir(parents=True, exist_ok=True)
                (marks / user).touch()
        except OSError:
            pass  # who cannot write here removes nothing either

    # --- what is there already

    def is_here(self, asked: Asked, there: Packages) -> bool:
        """Whether it was in the environment `there`, and that has not changed since."""
        try:
            return bool(json.loads((self._folder / f"{asked.key}.here").read_text()) == state_of(there))
        except (OSError, ValueError):
            return False

    def look(self, asked: Asked, there: Packages, uv: Uv) -> bool:
        """Whether all that is asked for is in the environment `there` now; asks uv, and no index."""
        begun = state_of(there)
        try:
            with tempfile.TemporaryDirectory() as folder:
                names = _names(asked, Path(folder), uv)
                exclude = _exclude(Path(folder))
                where = ("--python", there.python, "--break-system-packages", "--offline", "--dry-run")
                said = uv.run("pip", "install", *where, *names, *exclude, root=asked.root)
        except (UvError, OSError):
            return False
        if "Would make no changes" not in said:
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{asked.key}.here").write_text(json.dumps(begun))
        except OSError:
            pass  # it is looked at again next time
        return True

    # --- making

    def make(self, asked: Asked, uv: Uv) -> None:
        """Install it. Somebody else may be at it: then it is waited for. Raises UvError or StateError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                if self.find(asked) is None:
                    self._make(asked, uv)
        except OSError as error:
            what = error.strerror or str(error)
            hint = "make it writable, or name another with --state-dir"
            raise StateError(f"the folder of packages {self._folder} cannot be written: {what}", hint) from error

    def _make(self, asked: Asked, uv: Uv) -> None:
        for rest in self._folder.glob(f"{MAKING}*"):
            shutil.rmtree(rest, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=MAKING, dir=self._folder))
        try:
            venv = draft / "venv"
            uv.run("venv", "--relocatable", "--python", sys.executable, str(venv), root=asked.root)
            if asked.file == LOCK:
                _sync(asked, venv, uv)
            else:
                _install(asked, venv, draft, uv)
            _let_read(venv)
            os.sync()  # what has its name is whole, whatever happens to the machine
            venv.rename(self._folder / asked.key)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _lock(self, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        with open(self._folder / ".lock", "a") as file:
            fcntl.flock(file, how)
            yield

    # --- removing

    def sweep(self, keys: set[str], deployments: Path) -> None:
        """Remove what nobody uses: the project needs `keys`, each deployment in `deployments` what it has marked."""
        try:
            with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                for told in self._folder.glob("*.here"):
                    if told.stem not in keys and _age_s(told) > KEPT_UNUSED_S:
                        told.unlink()
                for marks in self._folder.glob("*.for"):
                    for mark in marks.iterdir():
                        gone = (
                            marks.stem not in keys if mark.name == PROJECT else not (deployments / mark.name).is_dir()
                        )
                        if gone:
                            mark.unlink()
                    if not any(marks.iterdir()) and _age_s(marks) > KEPT_UNUSED_S:
                        shutil.rmtree(self._folder / marks.stem, ignore_errors=True)
                        marks.rmdir()
        except OSError:
            return  # there is none yet, or somebody makes one: the next sweep finds them


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _sync(asked: Asked, venv: Path, uv: Uv) -> None:
    """Exactly what the lock says, without the project itself and its groups for development."""
    names = () if uv.offline else asked.local
    fresh = [word for name in names for word in ("--refresh-package", name)]
    uv.install(
        *("sync", "--frozen", "--no-default-groups", "--no-editable", "--no-install-project"),
        *("--no-install-package", "lampyr", "--compile-bytecode", "--python", sys.executable, *fresh),
        root=asked.root,
        UV_PROJECT_ENVIRONMENT=str(venv),
    )


def _install(asked: Asked, venv: Path, draft: Path, uv: Uv) -> None:
    python = ("--python", str(venv / "bin" / "python"), "--compile-bytecode")
    fresh = (
        ("--refresh",) if asked.local and not uv.offline else ()
    )  # uv looks only whether a folder's pyproject is new
    uv.install("pip", "install", *python, *fresh, *_names(asked, draft, uv), *_exclude(draft), root=asked.root)


def _names(asked: Asked, folder: Path, uv: Uv) -> tuple[str, ...]:
    """Arguments that name what is asked for to `uv pip`."""
    if not asked.locked:
        return ("-r", asked.file)
    file = folder / "requirements.txt"
    what = ("--no-default-groups", "--no-emit-project") if asked.file == LOCK else ("--script", asked.file)
    ours = ("--no-emit-package", "lampyr", "--no-editable")
    uv.run("export", "--frozen", *what, *ours, "--python", sys.executable, "--output-file", str(file), root=asked.root)
    return ("-r", str(file))


def _exclude(folder: Path) -> tuple[str, ...]:
    file = folder / "not-ours.txt"
    file.write_text(NOT_OURS)
    return ("--excludes", str(file))


def state_of(there: Packages) -> dict[str, int]:
    """The environment's folders with the times at which something was last installed or removed."""
    folders = [path for path in there.paths if path.endswith(("site-packages", "dist-packages"))]
    return {path: os.stat(path).st_mtime_ns for path in folders if os.path.isdir(path)}


def _let_read(venv: Path) -> None:
    """Functions have user ids of their own: what a cache holds for one user only is for all who may come here."""
    for folder, below, files in os.walk(venv):
        for name in (*below, *files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            wanted = mode | 0o444 | (0o111 if mode & 0o100 else 0)
            if wanted != mode and not os.path.islink(path):
                os.chmod(path, wanted)
    os.chmod(venv, 0o755)
