"""The DIR argument: which project a command is about."""

from __future__ import annotations

from pathlib import Path

import click

from lampyr.errors import ProjectError

folder_argument = click.argument("folder", type=click.Path(path_type=Path), metavar="[DIR]", default=".")


def project_in(folder: Path) -> Path:
    """The folder, absolute. Raises ProjectError: a wrong folder is no wrong command line (exit code 1, not 2)."""
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise ProjectError(f"{folder} is not a folder", "name the folder that holds app/")
    raise ProjectError(f"there is no folder {folder}", f"`lampyr init {folder}` makes a project there")
