"""`lampyr console`: where the pages for people are."""

from __future__ import annotations

from pathlib import Path

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, state_in, state_option


@click.command(short_help="Print the address of the console.")
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@folder_argument
def console(folder: Path, state_dir: Path | None, as_json: bool) -> None:
    """Print the address of the console of the server that runs for DIR.

    The address holds the token, which is that of whoever may see the console: open it, and pass it to nobody.
    """
    from lampyr.control import door

    found = door.ask(state_in(folder, state_dir), "console")
    if as_json:
        terminal.payload_json(found)
    else:
        terminal.payload(found["url"])
