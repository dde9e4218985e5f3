"""The deployments of a project: immutable copies of its files in the state directory, and which of them serves.

    deployments/<id>/...        a copy; the id is a hash of the names and contents of its files
    deployments/<id>.files      the hash of each file, so that the next copy can share what has not changed
    deployments/index.json      which copies are deployments, and in which order they were made active

What is in no index is the rest of an attempt that somebody has killed, and goes with the next one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from lampyr.errors import ProjectError, StateError

FOLDER, INDEX, DRAFT = "deployments", "index.json", ".making"
VERSION = 1
# What is on the disk of earlier deployments: the one that serves, the one before it, and the newest of the others.
KEPT = 10
ID_CHARS = 12
# What is no part of a deployment: histories, environments, caches, and the files with the machine's own variables.
LEFT_OUT = frozenset({".git", ".hg", ".svn", ".lampyr", ".venv", "__pycache__", "node_modules"})
VARIABLES = ".env"
# A folder that says of itself that it is an environment or a cache (https://bford.info/cachedir).
MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")
PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One line of the index; `created_at` is RFC 3339, in UTC."""

    id: str
    created_at: str
    preview: bool


@dataclass(slots=True)
class Index:
    """What is deployed. `history`: ids in the order in which they were made active; the last one serves."""

    deployments: dict[str, Deployment] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)

    @property
    def active(self) -> str | None:
        return self.history[-1] if self.history else None

    @property
    def before(self) -> str | None:
        """What `rollback` goes back to."""
        return next((id for id in reversed(self.history) if id != self.active), None)


class Registry:
    """The deployments of the project at `root`. One process at a time may change them. Raises StateError."""

    def __init__(self, state_dir: Path, root: Path) -> None:
        self.root = root
        self._state = state_dir.resolve()
        self._folder = self._state / FOLDER

    def folder(self, id: str) -> Path:
        """Where the files of a deployment are."""
        return self._folder / id

    def read(self) -> Index:
        """The index as it is on the disk."""
        try:
            told = json.loads((self._folder / INDEX).read_text())
            found = [Deployment(**one) for one in told["deployments"]]
            index = Index({one.id: one for one in found}, list(told["history"]))
        except FileNotFoundError:
            return Index()
        except (OSError, ValueError, TypeError, KeyError) as error:
            hint = "put it back from a copy, or remove the folder: the project is then deployed anew"
            raise StateError(f"{self._folder / INDEX} cannot be read: {error}", hint) from None
        index.history = [id for id in index.history if self.folder(id).is_dir()]
        return index

    # --- making

    def copy(self) -> str:
        """Copy the project as it is now; returns the id of what is no deployment before `add`. Raises ProjectError."""
        index = self.read()
        self._sweep(index)
        draft = self._folder / DRAFT
        before = self._files(index.active) if index.active else {}
        like = self.folder(index.active) if index.active else self._folder
        try:
            files = dict(self._copied(draft, like, before))
            id = sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:ID_CHARS]
            if not self.folder(id).is_dir():
                (self._folder / f"{id}.files").write_text(json.dumps(files))
                os.sync()  # once for all files: what the index will name is on the disk then
                draft.rename(self.folder(id))
        except OSError as error:
            message = f"{error.filename or self.root} cannot be copied: {error.strerror or error}"
            raise ProjectError(message, "check its permissions and the space on the disk") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return id

    def _copied(self, draft: Path, like: Path, before: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Copy into `draft`: names and hashes. A file that is the same in `like` takes no more room."""
        draft.mkdir(parents=True)
        for folder, source in _walk(self.root, self._state):
            target = draft / folder
            target.mkdir(exist_ok=True)
            # as the project's, whatever the umask: functions read it under user ids of their own
            target.chmod(os.stat(self.root / folder).st_mode & 0o755 | 0o700)
            for entry in source:
                name = os.path.join(folder, entry.name)
                if entry.is_symlink():
                    yield name, f"link {_link(entry.path, self.root, target / entry.name)}"
                elif entry.is_file():
                    old = (like / name, before[name]) if name in before else None
                    yield name, _file(Path(entry.path), target / entry.name, old)

    def _files(self, id: str) -> dict[str, str]:
        try:
            files: dict[str, str] = json.loads((self._folder / f"{id}.files").read_text())
        except (OSError, ValueError):
            return {}
        return files

    def _sweep(self, index: Index) -> None:
        """Remove what is no deployment."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path.name.removesuffix(".files") not in index.deployments and path.name != INDEX:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    # --- changing

    def add(self, id: str, *, preview: bool) -> Index:
        """The copy `id` is a deployment from now on: a preview, or the one that serves."""
        index = self.read()
        known = index.deployments.pop(id, None)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        was_active = id in index.history
        index.deployments[id] = Deployment(
            id=id,
            created_at=known.created_at if known else now,
            preview=preview and not was_active,
        )
        if not preview and index.active != id:
            index.history.append(id)
        return self._write(index)

    def go_back(self, id: str) -> Index:
        """`id`, which has served before, serves again; what was active since then is no way back any more."""
        index = self.read()
        if id in index.history:
            del index.history[len(index.history) - index.history[::-1].index(id) :]
        else:
            index.history.append(id)
        return self._write(index)

    def discard(self, id: str) -> None:
        """A copy that has become no deployment goes."""
        if id not in self.read().deployments:
            shutil.rmtree(self.folder(id), ignore_errors=True)
            (self._folder / f"{id}.files").unlink(missing_ok=True)

    def _write(self, index: Index) -> Index:
        """Write the index, whole or not at all, without the deployments that are too many."""
        held = [id for id in (index.active, index.before) if id]
        others = [id for id in reversed(index.deployments) if id not in held]
        kept = {*held, *others[: KEPT - len(held)]}
        index.deployments = {id: one for id, one in index.deployments.items() if id in kept}
        index.history = [id for id in index.history if id in kept][-2 * KEPT :]
        told = {
            "version": VERSION,
            "deployments": [asdict(one) for one in index.deployments.values()],
            "history": index.history,
        }
        _replace(self._folder / INDEX, json.dumps(told, indent=1).encode())
        return index


def _walk(root: Path, state: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each folder of the project, by its name from the root, with the entries that are part of a deployment."""
    pending = [""]
    while pending:
        folder = pending.pop()
        public = folder.split("/")[0] == "public"
        with os.scandir(root / folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        if folder and any(entry.name in MARKS for entry in entries):
            continue
        kept = [entry for entry in entries if public or _belongs(entry.name)]
        yield folder, kept
        below = (entry for entry in kept if entry.is_dir(follow_symlinks=False) and Path(entry.path) != state)
        pending.extend(os.path.join(folder, entry.name) for entry in below)


def _belongs(name: str) -> bool:
    return name not in LEFT_OUT and not name.startswith(VARIABLES)


def _link(path: str, root: Path, target: Path) -> str:
    """Make `target` a link like that at `path`: one that leads out of the project goes on leading to the same place."""
    text = os.readlink(path)
    leads = os.path.normpath(os.path.join(os.path.dirname(path), text))
    inside = leads == str(root) or leads.startswith(f"{root}/")
    if inside and os.path.isabs(text):
        text = os.path.relpath(leads, os.path.dirname(path))
    elif not inside:
        text = leads
    target.symlink_to(text)
    return text


def _file(source: Path, target: Path, old: tuple[Path, str] | None) -> str:
    """Copy one file for reading only; its hash, with whether it can be executed. Its time stays (Last-Modified)."""
    with open(source, "rb") as file:
        facts = os.fstat(file.fileno())
        mode = facts.st_mode & 0o555
        if old is not None and old[1] == _hash(file.fileno(), mode):
            try:
                os.link(old[0], target)
                return old[1]
            except OSError:
                pass  # the old copy is gone, or has as many names as a file can have
        file.seek(0)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode | 0o200), "wb") as copy:
            digest = sha256(b"%o " % mode)
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                copy.write(piece)
            copy.flush()
            os.utime(copy.fileno(), ns=(facts.st_atime_ns, facts.st_mtime_ns))
            os.fchmod(copy.fileno(), mode)
    return digest.hexdigest()


def _hash(fd: int, mode: int) -> str:
    digest = sha256(b"%o " % mode)
    at = 0
    while piece := os.pread(fd, PIECE_BYTES, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}", "free some space on its disk") from error


def as_told(index: Index, url: str) -> list[dict[str, Any]]:
    """The payload of `lampyr deployments --json` (SPEC 5), newest first. `url` is the server's."""
    return [
        {
            "id": one.id,
            "created_at": one.created_at,
            "active": one.id == index.active,
            "preview": one.preview,
            "url": url if one.id == index.active else preview_url(url, one.id) if one.preview else None,
        }
        for one in reversed(index.deployments.values())
    ]


def preview_url(url: str, id: str) -> str:
    """The address of a preview on the server at `url`: a host of its own, whose first label is the id.

    An IP address has no such hosts; every browser takes whatever ends in .localhost for this machine (RFC 6761).
    """
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    named = not host.startswith("[") and not host.replace(".", "").isdigit()
    return f"{scheme}://{id}.{host if named else 'localhost'}:{port}"
