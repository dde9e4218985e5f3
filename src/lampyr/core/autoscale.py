"""How many instances a function needs: when to start some, which to end, when to look again (no I/O, no clock)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

# Every start takes milliseconds of a core. So many may be at it, while other functions go on being served; one that
# takes longer than this waits for something itself (a hook, a lifespan), and does not hold up the others.
STARTS_AT_ONCE = 2
START_S = 0.025
# Calls that have been running for so long make a function busy: the next call is not likely to find one of its
# instances free, and so a spare one is started before it comes. Short ones are over sooner than that would help.
BUSY_AFTER_S = 0.1
# After an instance that died before it served anything, nothing is started ahead for this long, then twice as long.
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the function's settings say."""

    concurrency: int
    min_instances: int
    max_instances: int
    idle_timeout_s: float


@dataclass(slots=True)
class Load:
    """What waits and what runs. Times are on one clock; `idle_s` names since when each idle instance is idle."""

    waiting: int = 0
    instances: int = 0  # all processes, those that start or leave too
    starting_s: Sequence[float] = ()  # since when each instance that is not ready yet has been starting
    full_s: Sequence[float] = ()  # since when each instance without room for another call has been at it
    room: int = 0  # instances that have some, idle ones too
    leaving: int = 0  # instances that finish what they have and take nothing more
    idle_s: Sequence[float] = ()  # the eldest first
    paused_until_s: float = -inf  # no starts ahead of calls before then


@dataclass(frozen=True, slots=True)
class Plan:
    """Start so many; end so many of the idle ones, the eldest first.

    Look again at `look_s` unless something happens before; None: only what happens can change anything.
    """

    start: int = 0
    end: int = 0
    look_s: float | None = None


def scale(now_s: float, bounds: Bounds, load: Load) -> Plan:
    """What to do now. To be asked when a call begins to wait, an instance changes its state, or `look_s` has come."""
    start, start_look_s = _starts(now_s, bounds, load)
    if start:
        return Plan(start, look_s=start_look_s)
    end, end_look_s = _ends(now_s, bounds, load)
    looks = [look_s for look_s in (start_look_s, end_look_s) if look_s is not None]
    return Plan(0, end, min(looks, default=None))


def stood_by(took_s: float, room: int) -> bool:
    """Whether an idle instance was the spare one of a busy function while one of the others was at it for `took_s`.

    `room` counts the instances that had some. The spare one counts as used then, and goes when the others go.
    """
    return room == 1 and took_s >= BUSY_AFTER_S


def pause_s(failures: int) -> float:
    """How long to start nothing ahead after so many instances in a row that served nothing."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), LAST_PAUSE_S)


def _starts(now_s: float, bounds: Bounds, load: Load) -> tuple[int, float | None]:
    """How many to start, and when more may be."""
    starting = len(load.starting_s)
    wanted = -(-load.waiting // bounds.concurrency) - starting
    look_s = None
    ahead, ahead_look_s = _ahead(now_s, bounds, load)
    if ahead > wanted:
        if load.paused_until_s > now_s:
            look_s = load.paused_until_s
        else:
            wanted = ahead
    if wanted <= 0 or load.instances >= bounds.max_instances:
        return 0, look_s if look_s is not None else ahead_look_s
    return _paced(now_s, load, min(wanted, bounds.max_instances - load.instances))


def _paced(now_s: float, load: Load, wanted: int) -> tuple[int, float | None]:
    young_s = sorted(since_s for since_s in load.starting_s if since_s + START_S > now_s)
    start = min(wanted, max(STARTS_AT_ONCE - len(young_s), 0))
    if start == wanted:
        return start, None
    return start, (young_s[0] if young_s else now_s) + START_S


def _ahead(now_s: float, bounds: Bounds, load: Load) -> tuple[int, float | None]:
    """How many to start before anybody waits for them: `min_instances`, and a spare one for a busy function."""
    missing = bounds.min_instances - (load.instances - load.leaving)
    if missing > 0:
        return missing, None
    if load.room or load.starting_s or not load.full_s or load.instances >= bounds.max_instances:
        return 0, None
    busy_s = _busy_from_s(load)
    return (1, None) if busy_s <= now_s else (0, busy_s)


def _busy_from_s(load: Load) -> float:
    return max(load.full_s) + BUSY_AFTER_S


def _ends(now_s: float, bounds: Bounds, load: Load) -> tuple[int, float | None]:
    """How many idle instances to end, and when the next may be due."""
    spare = load.instances - load.leaving - len(load.starting_s) - bounds.min_instances
    not_before_s = -inf
    if load.room == 1 and load.full_s:
        not_before_s = _busy_from_s(load)
        if not_before_s <= now_s:
            return 0, None  # it stands by until one of the others is free
    end = 0
    for since_s in load.idle_s[: max(spare, 0)]:
        due_s = max(since_s + bounds.idle_timeout_s, not_before_s)
        if due_s > now_s:
            return end, due_s
        end += 1
    return end, None
