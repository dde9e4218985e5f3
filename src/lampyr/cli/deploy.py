"""`lampyr deploy`, `deployments`, `rollback` and `promote`: what a running server serves."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, project_in, state_in, state_option
from lampyr.errors import LampyrError, PackagesError

if TYPE_CHECKING:
    from lampyr.control.registry import Registry

COLUMNS = ("DEPLOYMENT", "MADE", "STATE", "URL")
# Its functions are imported, and that may take a minute each.
PATIENCE_S = 3600.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.command(short_help="Make a deployment and switch to it, without a pause.")
@click.option("--preview", is_flag=True, help="Give it a URL of its own and leave what serves as it is.")
@state_option
@json_option
@folder_argument
def deploy(folder: Path, preview: bool, state_dir: Path | None, as_json: bool) -> None:
    """Make a deployment of the project in DIR on the server that runs for it, and switch to it.

    It serves once each of its functions has been imported and has proved its health. One that cannot changes nothing.
    """
    root = project_in(folder)
    _install(root, root, state_in(root, state_dir), apart=False)
    _tell(_change(root, state_dir, "deploy", lambda _: [root], root=str(root), preview=preview), as_json)


@click.command(short_help="List the deployments, the newest first.")
@state_option
@json_option
@folder_argument
def deployments(folder: Path, state_dir: Path | None, as_json: bool) -> None:
    """List the deployments of the server that runs for DIR, the newest first."""
    found = _ask(folder, state_dir, "deployments")
    if as_json:
        terminal.payload_json(found)
    else:
        terminal.table(COLUMNS, [(one["id"], one["created_at"], _state(one), one["url"] or "-") for one in found])


@click.command(short_help="Go back to an earlier deployment.")
@click.argument("id", required=False)
@click.argument("folder", type=click.Path(path_type=Path), metavar="[DIR]", required=False)
@state_option
@json_option
def rollback(id: str | None, folder: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """Go back to the deployment ID, or to the one that served before, on the server that runs for DIR."""
    where = folder or Path()
    if id is not None and folder is None and os.path.isdir(id):
        where, id = Path(id), None
    _tell(_change(where, state_dir, "rollback", partial(_meant, id), id=id), as_json)


@click.command(short_help="Switch to a preview.")
@click.argument("id")
@folder_argument
@state_option
@json_option
def promote(id: str, folder: Path, state_dir: Path | None, as_json: bool) -> None:
    """Switch the server that runs for DIR to the preview ID."""
    _tell(_change(folder, state_dir, "promote", partial(_meant, id), id=id), as_json)


def _ask(folder: Path, state_dir: Path | None, do: str, **more: Any) -> Any:
    from lampyr.control import door

    return door.ask(state_in(folder, state_dir), do, patience_s=PATIENCE_S, **more)


def _change(
    folder: Path, state_dir: Path | None, do: str, copies: Callable[[Registry], list[Path]], **more: Any
) -> Any:
    """`_ask`, and again where the server has not the packages for it: then what `copies` ask for is installed first."""
    from lampyr.control.registry import Registry

    try:
        return _ask(folder, state_dir, do, **more)
    except LampyrError as error:
        if error.code != PackagesError.code:
            raise
    root, state = project_in(folder), state_in(folder, state_dir)
    for copy in copies(Registry(state, root)):
        _install(root, copy, state, apart=True)
    return _ask(folder, state_dir, do, **more)


def _meant(wanted: str | None, registry: Registry) -> list[Path]:
    """The files of the deployment whose id begins so, or of the one before."""
    index = registry.read()
    found = [id for id in index.deployments if id.startswith(wanted)] if wanted else [index.before]
    return [registry.folder(id) for id in found if id is not None]


def _install(root: Path, copy: Path, state: Path, *, apart: bool) -> None:
    """Have installed what `copy` asks for, the project at `root` or a deployment of it. `apart`: see build.supply.

    It is done here, so that the server goes on meanwhile. Whatever else is wrong with the files the server says. Raises
    BuildError, or StateError where no server runs.
    """
    from lampyr import config
    from lampyr.build.progress import Progress
    from lampyr.build.scan import scan
    from lampyr.build.supply import Supplier
    from lampyr.control import door
    from lampyr.control.releases import broken

    try:
        project = scan(copy, config.load(copy), root)
    except LampyrError:
        return
    with Progress() as progress:
        supplier = Supplier(state, os.environ, progress.now_at, apart=apart)
        supply = supplier.look(project)
        if supply.missing:
            door.ask(state, "deployments")  # nobody waits for an install before he is told that nobody is there
            supplier.install(supply.missing)
            supply = supplier.look(project)
    if supply.problems:
        raise broken(supply.problems)


def _tell(done: dict[str, Any], as_json: bool) -> None:
    for text in done["warnings"]:
        terminal.note(f"lampyr: warning: {text}")
    state = "serves" if done["active"] else "is a preview"
    terminal.note(f"lampyr: the deployment {done['id']} {state}")
    if as_json:
        terminal.payload_json(done)
    else:
        terminal.payload(done["url"])


def _state(one: dict[str, Any]) -> str:
    return "active" if one["active"] else "preview" if one["preview"] else ""
