"""`lampyr model`: the language models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampyr.cli import terminal
from lampyr.model import catalog, choice

if TYPE_CHECKING:
    from lampyr.model.catalog import Model

name_argument = click.argument("name", metavar="NAME")


@click.group(short_help="Language models on this machine.")
def model() -> None:
    """Language models on this machine, for providers of kind "local"."""


@model.command
@name_argument
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def pull(name: str, as_json: bool) -> None:
    """Fetch the model NAME (smollm2: 98 MB) and check its hash."""
    wanted = catalog.named(name)
    path, is_new = _obtained(wanted)
    if as_json:
        terminal.payload_json({"name": wanted.name, "path": str(path), "sha256": wanted.sha256, "pulled": is_new})
    else:
        terminal.payload(str(path))
    _say_who_answers(wanted)


@model.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
def list_models(as_json: bool) -> None:
    """Show the models Lampyr knows and which are here."""
    rows = [_row(one) for one in catalog.models().values()]
    if as_json:
        terminal.payload_json(rows)
        return
    for row in rows:
        state = row["path"] if row["genuine"] else "damaged: " + row["path"] if row["path"] else "not here"
        terminal.payload(f"{row['name']:<12} {row['bytes'] / 1e6:>5.0f} MB  {row['license']:<12} {state}")
    _say_who_answers(catalog.named(catalog.DEFAULT))


@model.command
@name_argument
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def remove(name: str, as_json: bool) -> None:
    """Delete the file of the model NAME."""
    from lampyr.model import pull

    wanted = catalog.named(name)
    path = pull.remove(wanted)
    if as_json:
        terminal.payload_json({"name": wanted.name, "removed": str(path)})
    else:
        terminal.note(f"removed {path}")


def _obtained(wanted: Model) -> tuple[Path, bool]:
    """The model's file, and whether it had to be fetched."""
    path = catalog.find(wanted)
    if path is not None and catalog.is_genuine(path, wanted):
        terminal.note(f"{wanted.title} is already here")
        return path, False
    from lampyr.model import pull

    terminal.note(f"fetching {wanted.title} ({wanted.bytes / 1e6:.0f} MB, {wanted.license})")
    return pull.pull(wanted), True


def _row(known: Model) -> dict[str, Any]:
    path = catalog.find(known)
    return {
        "name": known.name,
        "id": known.id,
        "title": known.title,
        "license": known.license,
        "bytes": known.bytes,
        "sha256": known.sha256,
        "path": str(path) if path else None,
        "genuine": path is not None and catalog.is_genuine(path, known),
    }


def _say_who_answers(known: Model) -> None:
    status = choice.status(known.name)
    terminal.note(status.sentence)
    if status.hint:
        terminal.note(f"hint: {status.hint}")
