"""`lampyr dev` and `lampyr start`: serve a project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from lampyr.cli.place import folder_argument, project_in, state_in, state_option


class Port(click.IntRange):
    """A number of a port; what is none is told in our words."""

    def __init__(self) -> None:
        super().__init__(0, 65535)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a whole number from 0 to 65535", param, ctx)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both ways of serving take."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the ready line as JSON."),
        state_option,
        click.option(
            "-H", "--host", metavar="HOST", help="Address to listen on.  [default: lampyr.toml, else 127.0.0.1]"
        ),
        click.option(
            "-p",
            "--port",
            type=Port(),
            metavar="PORT",
            help="Port to listen on; 0 picks a free one.  [default: lampyr.toml, else 3000]",
        ),
        folder_argument,
    ):
        command = option(command)
    return command


@click.command
@_options
def dev(folder: Path, port: int | None, host: str | None, state_dir: Path | None, as_json: bool) -> int:
    """Serve the project in DIR with hot reload.

    The next request after a save sees the change; running streams are not cut.
    """
    return _serve(folder, "development", port, host, state_dir, as_json)


@click.command
@_options
def start(folder: Path, port: int | None, host: str | None, state_dir: Path | None, as_json: bool) -> int:
    """Serve the project in DIR for production.

    SIGTERM or Ctrl-C lets running requests finish, a second one ends them.
    """
    return _serve(folder, "production", port, host, state_dir, as_json)


def _serve(
    folder: Path,
    mode: Literal["development", "production"],
    port: int | None,
    host: str | None,
    state_dir: Path | None,
    as_json: bool,
) -> int:
    root = project_in(folder)
    from lampyr import config, serve  # the server is imported by those who serve

    if port is None or host is None:
        server = config.load(root).server
        port = server.port if port is None else port
        host = server.host if host is None else host
    return serve.run(
        root,
        mode=mode,
        host=host,
        port=port,
        state_dir=state_in(root, state_dir),
        as_json=as_json,
    )
