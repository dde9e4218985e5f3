"""The way of a request through the server, as shapes to draw: client, gateway, function, broker, provider."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from lampyr.console import wording
from lampyr.console.picture import Function, Picture

# Sizes in the units of the drawing, which is WIDTH wide.
WIDTH, BOX_WIDTH, LINE = 1080, 150, 18
NARROW_WIDTH, NARROW_GAP = 360, 46
MAX_DOTS = 12
# Lines that a request in flight is surely on; whether its function calls a provider just now nobody knows.
TO_FUNCTION = 2
MAX_PROVIDERS = 3


@dataclass(slots=True)
class Node:
    """A box: where it is, what stands in it. `kind` is part of its class; `dots` are instances."""

    label: str
    facts: list[str]
    kind: str = ""
    address: bool = False
    dots: list[str] = field(default_factory=list)
    x: float = 0
    y: float = 0
    width: float = BOX_WIDTH

    @property
    def height(self) -> float:
        return 30 + LINE * (len(self.facts) + 1) - 4 + (16 if self.dots else 0)


@dataclass(slots=True)
class Wire:
    """A line between two boxes, with what goes over it."""

    path: str
    text: str
    at: tuple[float, float]
    lit: bool
    anchor: str = "middle"


@dataclass(slots=True)
class Drawing:
    """`width` and `height` of the whole; the first line is for those who do not see it."""

    said: str
    width: float
    height: float
    nodes: list[Node]
    wires: list[Wire]


def drawings(function: Function, picture: Picture, a_minute: int) -> tuple[Drawing, Drawing]:
    """Side by side, and one below the other for a phone. `a_minute`: requests in the last one."""
    said = _said(function, picture, a_minute)
    chain, ends = _nodes(function, picture, a_minute)
    texts = _texts(function, a_minute, picture)
    wide = _wide(said, chain, ends, texts, function)
    chain, ends = _nodes(function, picture, a_minute)
    return wide, _narrow(said, chain, ends, texts, function)


def _nodes(function: Function, picture: Picture, a_minute: int) -> tuple[list[Node], list[Node]]:
    """Those in a row, and the providers at its end."""
    card, sums = function.card, function.figures.sums if function.figures else None
    name = picture.window.name
    called = wording.number_of(sums["invocations"] if sums else 0, "invocation")
    clients = Node("Clients", [f"{called}, {name}", f"{wording.count(sums['refused'] if sums else 0)} refused"])
    route = _short(function.route, 15)
    gateway = Node(
        route,
        [" ".join(card["methods"]) or "an application", card["settings"]["rate_limit"] or "60/minute to write"],
        address=True,
    )
    instance = wording.number_of(len(function.instances), "instance")
    took = wording.duration(function.figures.duration["p50"]) if function.figures else wording.NOTHING
    own = Node(
        "Function",
        [f"{card['runtime']}, {instance}", f"p50 {took}, {_failed(sums)}"],
        kind="lit" if function.in_flight else "",
        dots=[lamp or "dark" for lamp in function.lamps[:MAX_DOTS]] or ["dark"],
    )
    mine = [one for one in picture.card["providers"] if one["name"] in card["providers"]]
    chain = [clients, gateway, own]
    if mine:
        keys = ", ".join(one["secret"] for one in mine if one["brokered"] and one["secret"])
        chain.append(Node("Broker", ["adds the key", _short(keys, 18)] if keys else ["counts tokens", "keeps budgets"]))
    ends = [
        Node(
            one["name"],
            [
                _short(one["host"], 19),
                "elsewhere" if one["brokered"] else "on this machine",
            ],
            kind="away" if one["brokered"] else "",
        )
        for one in mine[:MAX_PROVIDERS]
    ]
    if len(mine) > MAX_PROVIDERS:
        ends[-1].facts.append(f"and {len(mine) - MAX_PROVIDERS + 1} more")
    return chain, ends


def _short(text: str, most: int) -> str:
    """What fits into a box; the whole text is elsewhere on the page."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _failed(sums: dict[str, float] | None) -> str:
    return wording.number_of(sums["errors"] if sums else 0, "error")


def _texts(function: Function, a_minute: int, picture: Picture) -> list[str]:
    tokens = int(function.figures.sums["tokens_in"] + function.figures.sums["tokens_out"]) if function.figures else 0
    flow = f"{function.in_flight} in flight" + (f", {function.waiting} waiting" if function.waiting else "")
    spent = f"{wording.count(tokens)} tokens" if tokens else ""
    return [f"{wording.count(a_minute)} a minute", flow, spent, spent]


def _wide(said: str, chain: list[Node], ends: list[Node], texts: list[str], function: Function) -> Drawing:
    columns = len(chain) + bool(ends)
    gap = (WIDTH - columns * BOX_WIDTH) / max(columns - 1, 1)
    gap = min(gap, 130)
    tall = sum(one.height for one in ends) + 14 * (len(ends) - 1) if ends else 0
    height = max(tall, *(one.height for one in chain)) + 24
    for number, node in enumerate(chain):
        node.x, node.y = number * (BOX_WIDTH + gap), (height - node.height) / 2
    y = (height - tall) / 2
    for node in ends:
        node.x, node.y = len(chain) * (BOX_WIDTH + gap), y
        y += node.height + 14
    lit = function.in_flight > 0
    wires, middle = [], height / 2
    for number, (one, other) in enumerate(itertools.pairwise(chain)):
        x1, x2 = one.x + BOX_WIDTH, other.x
        wires.append(
            Wire(
                f"M{x1:.0f} {middle:.0f} H{x2:.0f}",
                texts[number],
                ((x1 + x2) / 2, middle - 9),
                lit and number < TO_FUNCTION,
            )
        )
    for number, node in enumerate(ends):
        x1, x2, y2 = chain[-1].x + BOX_WIDTH, node.x, node.y + node.height / 2
        bend = (x1 + x2) / 2
        path = f"M{x1:.0f} {middle:.0f} C{bend:.0f} {middle:.0f} {bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
        text = texts[len(chain) - 1] if number == 0 and len(ends) == 1 and len(chain) == 3 else ""
        wires.append(Wire(path, text, (bend, min(middle, y2) - 9), False))
    width = max(node.x for node in (*chain, *ends)) + BOX_WIDTH
    return Drawing(said, max(width, WIDTH * 0.62), height, [*chain, *ends], wires)


def _narrow(said: str, chain: list[Node], ends: list[Node], texts: list[str], function: Function) -> Drawing:
    y, wires, centre = 0.0, [], NARROW_WIDTH / 2
    nodes = [*chain, *ends]
    for number, node in enumerate(nodes):
        node.width, node.x, node.y = 240, centre - 120, y
        if number:
            above = nodes[number - 1]
            y1 = above.y + above.height
            direct = number < len(chain) or number == len(chain)
            text = texts[number - 1] if number <= len(chain) - 1 else ""
            if direct:
                wire = Wire(f"M{centre:.0f} {y1:.0f} V{y:.0f}", text, (centre + 12, (y1 + y) / 2 + 4), False, "start")
                wire.lit = function.in_flight > 0 and number <= TO_FUNCTION
                wires.append(wire)
        y += node.height + (NARROW_GAP if number < len(chain) else 12)
    return Drawing(said, NARROW_WIDTH, nodes[-1].y + nodes[-1].height + 6, nodes, wires)


def _said(function: Function, picture: Picture, a_minute: int) -> str:
    names = [one["name"] for one in picture.card["providers"] if one["name"] in function.card["providers"]]
    way = ["clients", f"the gateway at {function.route}", wording.number_of(len(function.instances), "instance")]
    if names:
        way.append(f"the providers {', '.join(names)}")
    return f"The way of a request: {', then '.join(way)}. {a_minute} requests a minute, {function.in_flight} in flight."
