"""docs/cli.md names every command and every option there is, and none that is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lampyr.cli import lampyr

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}")


def sections() -> dict[str, str]:
    """The text under each heading `## lampyr ...`, by the words of the command."""
    parts = re.split(r"^## (lampyr[^\n]*)\n", PAGE.read_text(), flags=re.MULTILINE)
    titles = (re.sub(r" [A-Z\[].*", "", title) for title in parts[1::2])
    return dict(zip(titles, parts[2::2], strict=True))


ALL = dict(commands(lampyr, "lampyr"))


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_a_section_with_each_of_its_options(name: str) -> None:
    section = sections()[name]
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            for spelling in parameter.opts:
                assert f"`{spelling}`" in section, f"{PAGE.name} does not explain {name} {spelling}"


def test_every_section_and_option_is_real() -> None:
    for name, text in sections().items():
        assert name in ALL, f"{PAGE.name} explains {name}, which does not exist"
        real = {"-h", "--help", *(spelling for parameter in ALL[name].params for spelling in parameter.opts)}
        listed = re.findall(r"`(--?[a-z][a-z-]*)`", " ".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)))
        assert set(listed) <= real


@pytest.mark.parametrize("name", ALL)
def test_a_command_says_what_it_does(name: str) -> None:
    assert ALL[name].help
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[-1]} has no help text"
