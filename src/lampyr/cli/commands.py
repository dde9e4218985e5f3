"""A group of commands that are imported when they are needed, so that one command does not pay for all."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click


class Commands(click.Group):
    """Commands by name; `modules` maps each name to the module that has the command under that name."""

    def __init__(self, *args: Any, modules: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table: that of a project's life."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, or None where there is no such name."""
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        command = getattr(import_module(module), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does it, with the nearest name in the error."""
        if args[0] in self._modules or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.NoSuchCommand(args[0], possibilities=self._modules, ctx=ctx)
