"""The models Lampyr knows, where their files are, and whether a file is the one that was pinned."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from lampyr.errors import ModelError

DEFAULT = "smollm2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One entry of models.toml. `name` is what people type, `id` what the wire format says, `bytes` the file's size."""

    name: str
    id: str
    title: str
    license: str
    package: str
    version: str
    file: str
    bytes: int
    sha256: str

    @property
    def module(self) -> str:
        """Name of the folder the wheel unpacks to."""
        return self.package.replace("-", "_")


def models() -> dict[str, Model]:
    """Every known model by name."""
    table = tomllib.loads(resources.files("lampyr.model").joinpath("models.toml").read_text("utf-8"))
    return {name: Model(name=name, **entry) for name, entry in table.items()}


def named(name: str) -> Model:
    """The model called `name`, by its short name or its id. Raises ModelError that lists the known ones."""
    known = models()
    for model in known.values():
        if name.lower() in (model.name, model.id):
            return model
    raise ModelError(f"there is no local model called {name!r}", f"known models: {', '.join(known)}")


@cache
def short_name(id: str) -> str:
    """What people type for the model that the wire calls `id`; the id where nobody knows it."""
    return next((model.name for model in models().values() if model.id == id), id)


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where pulled models are kept: LAMPYR_MODELS, else lampyr/models in the user's data folder (XDG)."""
    if chosen := environ.get("LAMPYR_MODELS"):
        return Path(chosen).expanduser()
    data = environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "lampyr" / "models"


def pulled(model: Model) -> Path | None:
    """The file `lampyr model pull` made, if it is there."""
    path = folder() / model.file
    return path if path.is_file() else None


def packaged(model: Model) -> Path | None:
    """The file inside the installed wheel, if that is in this environment; the wheel's code is never imported."""
    spec = find_spec(model.module)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / model.file
        if path.is_file():
            return path
    return None


def find(model: Model) -> Path | None:
    """The model's file on this machine: the first that is genuine, of what was pulled and what is installed.

    Where none is, a damaged one, so that somebody can be told of it.
    """
    found = [path for path in (pulled(model), packaged(model)) if path]
    return next((path for path in found if is_genuine(path, model)), found[0] if found else None)


def is_genuine(path: Path, model: Model) -> bool:
    """Whether the file has the pinned hash. 98 MB take 0.5 s, so a success is remembered by size and mtime."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, model.sha256]
    if stat.st_size != model.bytes:
        return False
    remembered = _remembered()
    if remembered.get(str(path)) == stamp:
        return True
    genuine = sha256(path) == model.sha256
    if genuine:
        _remember({**remembered, str(path): stamp})
    return genuine


def sha256(path: Path) -> str:
    """The file's hash, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered() -> dict[str, object]:
    try:
        value = json.loads((folder() / "checked.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _remember(checks: dict[str, object]) -> None:
    # Losing the note costs a hash, so a read-only data folder is no error.
    path = folder() / "checked.json"
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(checks))
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
