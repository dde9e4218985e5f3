"""The status words of a function, each computed from facts, with the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lampyr.console import wording
from lampyr.console.picture import Function, Picture
from lampyr.ledger.recent import STEPS


@dataclass(frozen=True, slots=True)
class Word:
    """`lamp` as in console.css: lit, idle, failed, or "" for dark. `facts` explain it, `meaning` says why it is so."""

    key: str
    text: str
    value: str
    lamp: str
    meaning: str
    facts: tuple[tuple[str, str], ...]


def words(function: Function, picture: Picture, peak: int) -> list[Word]:
    """All of a function's."""
    return [
        _scaling(function, peak),
        _deployed(function, picture),
        _secure(function, picture.card),
        _optimized(function),
        _execution(function, picture),
    ]


def _scaling(function: Function, peak: int) -> Word:
    card, now = function.card, len(function.instances)
    most = card["settings"]["max_instances"]
    full = now >= most
    return Word(
        "scaling",
        "SCALING",
        f"{now} of {most}",
        "failed" if full and function.waiting else "lit" if function.in_flight else "idle" if now else "",
        "Instances start when requests wait and end when nobody calls; there are never more than the cap."
        if not full
        else "There are as many instances as there may be: what comes now waits for one of them.",
        (
            ("now", f"{now}, {wording.number_of(function.in_flight, 'request')} in flight"),
            ("waiting", wording.number_of(function.waiting, "request")),
            ("peak", f"{max(peak, now)} in the last {STEPS[60] // 1440} days"),
            ("cap", f"{most} (max_instances)"),
            ("floor", f"{card['settings']['min_instances']} (min_instances)"),
            (
                "each serves",
                wording.number_of(card["settings"]["concurrency"], "request at a time", "requests at a time"),
            ),
            ("idle ones end", f"after {card['settings']['idle_timeout']:g} s"),
        ),
    )


def _deployed(function: Function, picture: Picture) -> Word:
    card, edge = function.card, function.card["runtime"] == "edge"
    wanted = card["settings"]["regions"]
    where = "all points of presence" if edge and not wanted else ", ".join(wanted or ()) or "this machine"
    failed = bool(card["problem"])
    return Word(
        "deployed",
        "EDGE_DEPLOYED" if edge else "DEPLOYED",
        "cannot run" if failed else "on this machine",
        "failed" if failed else "idle",
        card["problem"]
        or (
            "An edge function goes to every point of presence; no other one has joined this server, so it answers here."
            if edge
            else "A function of the standard runtime answers on the machine it is deployed to."
        ),
        (
            ("where", "this machine"),
            ("meant for", where),
            ("deployment", picture.card["deployment"]),
            ("address", f"{picture.url}{function.route}"),
            ("file", card["file"]),
            ("answers", ", ".join(card["methods"]) or "what its application does"),
        ),
    )


def _secure(function: Function, card: dict[str, Any]) -> Word:
    brokered = [one for one in card["providers"] if one["brokered"] and one["name"] in function.card["providers"]]
    mine = [one for one in card["secrets"] if one["functions"] is None or function.route in one["functions"]]
    masked, exposed = len(card["secrets"]), card["errors"]
    functions, files = len(card["functions"]), card["public_files"]
    scanned = f"{wording.number_of(functions, 'function')}, {wording.number_of(files, 'file')} in public/"
    lacking = ", ".join(one["secret"] for one in brokered if not one["has_key"])
    value = "no key" if lacking else "brokered" if brokered else "masked" if masked else "no secrets"
    names = ", ".join(one["secret"] or one["name"] for one in brokered)
    if exposed:
        meaning = "The project has errors; one of them may be a secret where a browser would see it."
    elif lacking:
        meaning = f"Calls of this function are refused, because there is no {lacking}: set it with lampyr secrets set."
    elif brokered:
        meaning = "The broker adds the key to calls of this function; the function never has it."
    elif masked:
        meaning = "Secrets that this function has are taken out of its log lines, its errors and its answers."
    else:
        meaning = "There is no secret that could leak."
    return Word(
        "secure",
        "SECURE" if not exposed else "INSECURE",
        value if not exposed else wording.number_of(exposed, "error"),
        "failed" if exposed or lacking else "idle",
        meaning,
        (
            ("brokered keys", names or "none"),
            *([("missing keys", lacking)] if lacking else []),
            ("masked values", wording.number_of(masked, "secret")),
            ("it has", wording.number_of(len(mine), "secret")),
            ("last scan", f"{wording.ago(card['scanned_ms'])}: {scanned}, {wording.number_of(exposed, 'error')}"),
            ("network", function.card["settings"]["network"]),
            ("rate limit", function.card["settings"]["rate_limit"] or "60/minute on methods that write"),
        ),
    )


def _optimized(function: Function) -> Word:
    card = function.card
    init = function.figures.init if function.figures else {"p50": None, "p99": None}
    ready = function.snapshot == "ready"
    known = card["loaded_bytes"] is not None
    return Word(
        "optimized",
        "OPTIMIZED" if ready else "UNOPTIMIZED",
        wording.size(card["loaded_bytes"]) if known and ready else "no snapshot" if not ready else "ready",
        "idle" if ready else "failed" if card["problem"] else "",
        "A process has imported the function already; an instance is a fork of it, so no request waits for an import."
        if ready
        else "No process has imported the function: the next request waits for its import.",
        (
            ("snapshot", "ready" if ready else function.snapshot),
            ("the project's files in it", _bundle(card)),
            ("cold start", f"p50 {wording.duration(init['p50'])}, p99 {wording.duration(init['p99'])}"),
            ("memory", f"{function.memory_mb:.1f} MB in {wording.number_of(len(function.instances), 'instance')}"),
        ),
    )


def _bundle(card: dict[str, Any]) -> str:
    if card["loaded_bytes"] is None:
        return "not imported yet"
    return f"{wording.size(card['loaded_bytes'])} in {wording.number_of(card['loaded_files'], 'file')}"


def _execution(function: Function, picture: Picture) -> Word:
    figures = function.figures
    took = figures.duration if figures else {"p50": None, "p95": None, "p99": None}
    first = figures.first_byte["p50"] if figures else None
    called = figures.sums["invocations"] if figures else 0
    return Word(
        "execution",
        "Execution:",
        wording.duration(took["p50"]),
        "idle" if took["p50"] is not None else "",
        "How long its handler takes, from when an instance has the request to the last byte: half of them less."
        if took["p50"] is not None
        else "Nobody has called it in this time.",
        (
            ("p50", wording.duration(took["p50"])),
            ("p95", wording.duration(took["p95"])),
            ("p99", wording.duration(took["p99"])),
            ("first byte of streams", wording.duration(first)),
            ("of", f"{wording.number_of(called, 'invocation')}, {picture.window.name}"),
            ("limit", _limit(function.card["settings"])),
        ),
    )


def _limit(settings: dict[str, Any]) -> str:
    if settings["max_duration"] is not None:
        return f"{settings['max_duration']:g} s (max_duration)"
    return f"none; {settings['first_byte_timeout']:g} s to the first byte"
