"""`lampyr ps --watch`: the functions of a server at a glance, again and again, with a lamp for each instance."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lampyr.errors import StateError

EVERY_S = 1.0
# They fit into a terminal of 80 columns.
MAX_LAMPS = 12
# What an instance is at → its lamp and the style of it.
_LAMPS = {
    "lit": ("●", "bold yellow1"),
    "idle": ("●", "dark_sea_green4"),
    "starting": ("◌", "cyan"),
    "": ("○", "bright_black"),
}
_ORDER = tuple(_LAMPS)


def watch(state: Path) -> NoReturn:
    """Until Ctrl-C. Raises LampyrError where no server runs when it begins; a server that goes away is waited for."""
    from lampyr.control import door

    shown = view(door.ask(state, "ps"))
    with Live(shown, console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(EVERY_S)
            try:
                shown = view(door.ask(state, "ps"))
            except StateError as error:
                shown = Group(Text(error.message, style="red"), Text(error.hint, style="bright_black"))
            live.update(shown, refresh=True)


def view(running: dict[str, Any]) -> Group:
    """What is drawn of a payload of `ps`. With several deployments a row names its own in place of its runtime."""
    functions = running["functions"]
    second = "deployment" if len({one["deployment"] for one in functions}) > 1 else "runtime"
    table = Table(box=None, pad_edge=False, header_style="bright_black", expand=True)
    for column, more in (
        ("FUNCTION", {}), (second.upper(), {}), ("INSTANCES", {"ratio": 1}), ("IN FLIGHT", {"justify": "right"}),
        ("WAITING", {"justify": "right"}), ("MEMORY", {"justify": "right"}),
    ):  # fmt: skip
        table.add_column(column, no_wrap=True, **more)
    for function in functions:
        table.add_row(*_row(function, second))
    return Group(_headline(functions), Text(), table, Text(), Text("Ctrl-C leaves", style="bright_black"))


def _headline(functions: list[dict[str, Any]]) -> Text:
    lit = sum(bool(one["instances"]) for one in functions)
    flying = sum(one["in_flight"] for function in functions for one in function["instances"])
    instances = sum(len(one["instances"]) for one in functions)
    if not lit:
        return Text.assemble(("Dark. ", "bright_black"), "Nobody is calling")
    return Text.assemble(
        (f"{lit} of {len(functions)} functions lit", "bold"), f", {_many(instances, 'instance')}, {flying} in flight"
    )


def _row(function: dict[str, Any], second: str) -> tuple[Text, ...]:
    instances = function["instances"]
    flying = sum(one["in_flight"] for one in instances)
    name = Text(function["function"], style="bold" if flying else "" if instances else "bright_black")
    memory = f"{sum(one['memory_mb'] for one in instances):.1f} MB" if instances else "-"
    dim = "" if instances else "bright_black"
    return (
        name,
        Text(function[second], style="bright_black"),
        _lamps(function),
        Text(str(flying), style="bold yellow1" if flying else "bright_black"),
        Text(str(function["waiting"]), style="red" if function["waiting"] else "bright_black"),
        Text(memory, style=dim),
    )


def _lamps(function: dict[str, Any]) -> Text:
    states = sorted((_state(one) for one in function["instances"]), key=_ORDER.index)
    if not states:
        words = {"ready": "snapshot ready", "absent": "no snapshot"}
        return Text.assemble(_LAMPS[""], (f" {words[function['snapshot']]}", "bright_black"))
    text = Text(" ").join(Text(*_LAMPS[state]) for state in states[:MAX_LAMPS])
    if len(states) > MAX_LAMPS:
        text.append(f" +{len(states) - MAX_LAMPS}", "bright_black")
    return text


def _state(instance: dict[str, Any]) -> str:
    if instance["in_flight"]:
        return "lit"
    return instance["state"] if instance["state"] in _LAMPS else ""


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
