"""What the console's pages read as JSON, and whoever has the token may read as well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, get_type_hints

from starlette.requests import Request

from lampyr.console import facts
from lampyr.console.api import NUMBER, TEXT, TEXT_OR_NULL, WHOLE, Endpoint, Parameter, Schema, listed, record
from lampyr.console.guard import Refused
from lampyr.console.picture import Picture, take
from lampyr.ledger import history
from lampyr.ledger.history import MAX_LATEST, WINDOWS, Figures
from lampyr.ledger.recent import SUMS
from lampyr.logs import reading
from lampyr.logs.line import LEVELS, Line
from lampyr.logs.reading import Query

MAX_ROUTE, MAX_TEXT, MAX_LINES = 2000, 200, 1000


async def _overview(request: Request, query: dict[str, Any]) -> Any:
    picture = await take(facts.of(request), WINDOWS[query["window"]])
    return {
        "deployment": picture.card["deployment"],
        "functions": [
            {
                "function": one.route,
                "state": one.state or "dark",
                "instances": len(one.instances),
                "in_flight": one.in_flight,
                "waiting": one.waiting,
                **_told(one.figures),
            }
            for one in picture.functions
        ],
        "total": _total(picture),
    }


def _total(picture: Picture) -> dict[str, Any]:
    return {"instances": picture.instances, "in_flight": picture.in_flight, **_told(picture.total)}


def _told(figures: Figures | None) -> dict[str, Any]:
    if figures is None:
        return {**dict.fromkeys(SUMS, 0), "duration": _NOT_MEASURED, "init": _NOT_MEASURED, "first_byte": _NOT_MEASURED}
    return {**figures.sums, "duration": figures.duration, "init": figures.init, "first_byte": figures.first_byte}


_NOT_MEASURED = dict.fromkeys(history.PARTS)


async def _series(request: Request, query: dict[str, Any]) -> Any:
    window, function, now_ms = WINDOWS[query["window"]], query["function"], int(time.time() * 1000)

    def read() -> dict[str, list[Any]]:
        with history.reading(facts.of(request).ledger) as db:
            if db is None:
                return history.no_series(window, now_ms)
            columns = history.series(db, window, now_ms, function)
            if function is not None:
                columns["instances"] = history.instances(db, window, now_ms, function)
            return columns

    columns = await asyncio.to_thread(read)
    if function is not None:
        # The ledger is half a second behind.
        running = (await facts.of(request).control.ask("ps"))["functions"]
        now = sum(len(one["instances"]) for one in running if one["function"] == function)
        before = columns.get("instances") or [0] * len(columns["time"])
        columns["instances"] = [*before[:-1], max(before[-1], now)]
    return columns


async def _invocations(request: Request, query: dict[str, Any]) -> Any:
    if query["before"] and not history.is_id(query["before"]):
        raise Refused(400, "BAD_REQUEST", "The parameter before is not the id of an invocation.")

    def read() -> list[dict[str, Any]]:
        with history.reading(facts.of(request).ledger) as db:
            return [row.told for row in history.latest(db, **query)] if db is not None else []

    return {"invocations": await asyncio.to_thread(read)}


async def _invocation(request: Request, query: dict[str, Any]) -> Any:
    id = request.path_params["id"]

    def read() -> history.Invocation | None:
        with history.reading(facts.of(request).ledger) as db:
            return history.one(db, id) if db is not None else None

    row = await asyncio.to_thread(read)
    if row is None:
        raise Refused(404, "NOT_FOUND", "There is no such invocation, or not yet.")
    said = await lines(request, Query(id=row.id, function=row.function))
    return {"invocation": row.told, "lines": [line._asdict() for line in said]}


async def _logs(request: Request, query: dict[str, Any]) -> Any:
    found = await lines(request, wanted(query), query["limit"])
    return {"lines": [line._asdict() for line in found]}


async def _secrets(request: Request, query: dict[str, Any]) -> Any:
    card = await facts.of(request).control.ask("card")
    return {"secrets": card["secrets"]}


async def lines(request: Request, query: Query, count: int = MAX_LINES) -> list[Line]:
    """The latest lines of the log."""
    return await asyncio.to_thread(reading.last, facts.of(request).logs, query, count)


def wanted(query: dict[str, Any]) -> Query:
    """Which lines a request asks for."""
    return Query(
        id=query.get("id") or None,
        function=query.get("function") or None,
        level=query.get("level") or LEVELS[0],
        contains=query.get("contains") or "",
    )


_WINDOW = Parameter("window", {"type": "string", "enum": list(WINDOWS), "default": "1h"}, "the time up to now")
_FUNCTION = Parameter("function", {"type": "string", "maxLength": MAX_ROUTE}, "its route; all without it")
LOG_PARAMETERS = (
    _FUNCTION,
    Parameter("id", {"type": "string", "maxLength": 24}, "of an invocation"),
    Parameter("level", {"type": "string", "enum": list(LEVELS), "default": LEVELS[0]}, "and above"),
    Parameter("contains", {"type": "string", "maxLength": MAX_TEXT, "default": ""}, "text in the line"),
)

_NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
_PARTS = record(**dict.fromkeys(history.PARTS, _NUMBER_OR_NULL))
_TOLD = {**dict.fromkeys(SUMS, NUMBER), "duration": _PARTS, "init": _PARTS, "first_byte": _PARTS}
_FIELDS: dict[Callable[..., Any], Schema] = {str: TEXT, int: WHOLE, bool: {"type": "boolean"}, float: NUMBER}
_ROW = record(**{name: _FIELDS[kind] for name, kind in get_type_hints(history.Invocation).items()})
_LINE = record(time=TEXT, id=TEXT_OR_NULL, function=TEXT_OR_NULL, stream=TEXT, level=TEXT, message=TEXT)
_SECRET = record(name=TEXT, source=TEXT, functions={"type": ["array", "null"], "items": TEXT}, provider=TEXT_OR_NULL)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/api/overview",
        "What runs and what was used, by function and in total; times in ms.",
        _overview,
        record(
            deployment=TEXT,
            functions=listed(
                record(function=TEXT, state=TEXT, instances=WHOLE, in_flight=WHOLE, waiting=WHOLE, **_TOLD)
            ),
            total=record(instances=WHOLE, in_flight=WHOLE, **_TOLD),
        ),
        (_WINDOW,),
    ),
    Endpoint(
        "/api/series",
        "Columns of a chart: time (s since 1970), sums, percentiles in ms; of one function, its instances too.",
        _series,
        {"type": "object", "additionalProperties": listed(_NUMBER_OR_NULL), "required": ["time", *SUMS, "p50"]},
        (_WINDOW, _FUNCTION),
    ),
    Endpoint(
        "/api/invocations",
        "Rows of the ledger, newest first.",
        _invocations,
        record(invocations=listed(_ROW)),
        (
            _FUNCTION,
            Parameter("failed", {"type": "boolean", "default": False}, "those that went wrong only"),
            Parameter("before", {"type": "string", "maxLength": 24, "default": ""}, "older than this one, by its id"),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LATEST, "default": 50}),
        ),
    ),
    Endpoint(
        "/api/invocations/{id}",
        "A row of the ledger, and what was said under its id.",
        _invocation,
        record(invocation=_ROW, lines=listed(_LINE)),
    ),
    Endpoint(
        "/api/logs",
        "The latest lines of the log, in the order of time.",
        _logs,
        record(lines=listed(_LINE)),
        (*LOG_PARAMETERS, Parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LINES, "default": 100})),
    ),
    Endpoint(
        "/api/secrets",
        "The names of secrets: where each is from, and which functions have it (null: all). Never a value.",
        _secrets,
        record(secrets=listed(_SECRET)),
    ),
)
