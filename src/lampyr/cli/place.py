"""Which project, which server's state and which vault a command is about."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lampyr.errors import ProjectError

if TYPE_CHECKING:
    from lampyr.types import Secret
    from lampyr.vault.master import Keys

folder_argument = click.argument("folder", type=click.Path(path_type=Path), metavar="[DIR]", default=".")
state_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where state is kept.  [default: .lampyr in the project]",
)


def project_in(folder: Path) -> Path:
    """The folder, absolute. Raises ProjectError: a wrong folder is no wrong command line (exit code 1, not 2)."""
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise ProjectError(f"{folder} is not a folder", "name the folder that holds app/")
    raise ProjectError(f"there is no folder {folder}", f"`lampyr init {folder}` makes a project there")


def state_in(folder: Path, state_dir: Path | None) -> Path:
    """The state directory of the server for `folder`. Raises ProjectError."""
    return (state_dir or project_in(folder) / ".lampyr").absolute()


def kept_in(folder: Path, state_dir: Path | None) -> Path:
    """As `state_in`, to read what servers have kept there. Raises ProjectError where none can have."""
    state = state_in(folder, state_dir)
    if not state.is_dir():
        from lampyr.build.scan import app_folder

        app_folder(project_in(folder))
    return state


def vault_keys() -> Keys:
    """Where the vault's master key may come from: LAMPYR_MASTER_KEY, or a prompt where there is a terminal."""
    from lampyr.vault import master, place

    return master.Keys(os.environ.get(place.VARIABLE), _ask)


def vault_values(state: Path, environment: str) -> dict[str, Secret]:
    """What is in the vault of a state directory; the vault's code is imported only where there is one."""
    from lampyr.vault.place import Place

    where = Place(state)
    if not where.exists():
        return {}
    from lampyr.vault import acts

    return acts.values(where, vault_keys(), environment)


def _ask() -> str | None:
    import getpass

    return getpass.getpass("Passphrase of the vault: ") if sys.stdin.isatty() else None
