"""Which project, and which server's state, a command is about."""

from __future__ import annotations

from pathlib import Path

import click

from lampyr.errors import ProjectError

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
