"""The console's pages: each takes a picture of the server and has a template draw it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from lampyr.console import facts, look, reports, timeline, way
from lampyr.console.picture import Picture, take
from lampyr.console.words import words
from lampyr.ledger import history
from lampyr.ledger.history import WINDOWS, Invocation
from lampyr.logs import reading
from lampyr.logs.line import LEVELS, RANK, Line
from lampyr.logs.reading import Query

ON_OVERVIEW, ON_FUNCTION, ON_LIST, FAULTS = 12, 15, 60, 30
LOG_LINES, FUNCTION_LINES, FAULT_LINES = 300, 14, 400
ID_CHARS = 24

Page = Callable[[Request, Picture], Awaitable[Response]]


def _page(draw: Page) -> Callable[[Request], Awaitable[Response]]:
    """`draw` with a picture of the server."""

    async def serve(request: Request) -> Response:
        window = WINDOWS.get(request.query_params.get("window", ""), WINDOWS["1h"])
        return await draw(request, await take(facts.of(request), window))

    return serve


async def _overview(request: Request, picture: Picture) -> Response:
    rows = await _rows(request, limit=ON_OVERVIEW)
    return look.page(request, "overview", picture=picture, latest=rows)


async def _function(request: Request, picture: Picture) -> Response:
    function = picture.find("/" + request.path_params["route"])
    if function is None:
        return _nothing(request, picture, "There is no such function", "It may have been removed since.")
    rows = await _rows(request, function=function.route, limit=ON_FUNCTION)
    a_minute, peak = await asyncio.to_thread(_busy, request, function.route)
    wide, narrow = way.drawings(function, picture, a_minute)
    shown = words(function, picture, peak=peak)
    parts = "".join(f",#lamp-{one.key},#value-{one.key},#facts-{one.key}" for one in shown)
    return look.page(
        request,
        "function",
        picture=picture,
        function=function,
        words=shown,
        wide=wide,
        narrow=narrow,
        latest=rows,
        lines=await _said(request, function.route),
        poll_words=parts,
    )


async def _invocations(request: Request, picture: Picture) -> Response:
    query = request.query_params
    if query.get("id"):
        return RedirectResponse(f"/invocations/{quote(query['id'].strip()[:ID_CHARS], safe='')}", HTTPStatus.SEE_OTHER)
    function, failed, before = query.get("function", ""), query.get("failed") == "true", query.get("before", "")
    before = before if history.is_id(before) else ""
    rows = await _rows(request, function=function or None, failed=failed, before=before, limit=ON_LIST)
    asked = {"function": function, "failed": "true" if failed else ""}
    older = urlencode({**{name: one for name, one in asked.items() if one}, "before": rows[-1].id}) if rows else ""
    return look.page(
        request,
        "invocations",
        picture=picture,
        rows=rows,
        function=function,
        failed=failed,
        before=before,
        older=f"/invocations?{older}" if len(rows) == ON_LIST else "",
    )


async def _invocation(request: Request, picture: Picture) -> Response:
    row = await asyncio.to_thread(_one, request, request.path_params["id"])
    if row is None:
        return _nothing(
            request, picture, "There is no such invocation", "It may be too new by half a second, or too old."
        )
    lines = await reports.lines(request, Query(id=row.id, function=row.function))
    return look.page(
        request,
        "invocation",
        picture=picture,
        row=row,
        pieces=timeline.pieces(row),
        ticks=timeline.ticks(row.total_ms),
        first_byte=row.queue_ms + row.init_ms + row.first_byte_ms,
        lines=lines,
        fault=fault(lines) if row.failed else "",
    )


async def _errors(request: Request, picture: Picture) -> Response:
    rows = await _rows(request, failed=True, limit=FAULTS)
    faults = await asyncio.to_thread(_faults, facts.of(request), rows)
    return look.page(request, "errors", picture=picture, faults=faults)


def _faults(known: facts.Facts, rows: list[Invocation]) -> list[tuple[Invocation, str]]:
    return [
        (row, fault(reading.last(known.logs, Query(id=row.id, function=row.function), FAULT_LINES))) for row in rows
    ]


def fault(lines: list[Line]) -> str:
    """What went wrong with an invocation, by what was said under its id: the errors, else what its process said."""
    said = [line for line in lines if line.stream != "access"]
    errors = [line for line in said if RANK[line.level] >= RANK["error"]] or said
    return "\n".join(line.message for line in errors)


async def _logs(request: Request, picture: Picture) -> Response:
    query = request.query_params
    level = query.get("level", "")
    asked: dict[str, Any] = {
        "function": query.get("function", "")[: reports.MAX_ROUTE],
        "level": level if level in LEVELS else LEVELS[0],
        "contains": query.get("contains", "")[: reports.MAX_TEXT],
    }
    lines = await reports.lines(request, reports.wanted(asked), LOG_LINES)
    return look.page(request, "logs", picture=picture, lines=lines, levels=LEVELS, query=urlencode(asked), **asked)


async def _said(request: Request, function: str) -> list[Line]:
    return await reports.lines(request, Query(function=function), FUNCTION_LINES)


async def _secrets(request: Request, picture: Picture) -> Response:
    return look.page(request, "secrets", picture=picture, secrets=picture.card["secrets"])


async def _playground(request: Request, picture: Picture) -> Response:
    function = request.query_params.get("function", "")
    return look.page(request, "playground", picture=picture, function=function, body=EXAMPLE)


EXAMPLE = '{"messages": [{"role": "user", "content": "Why do fireflies glow?"}]}'


def _nothing(request: Request, picture: Picture, title: str, message: str) -> Response:
    return look.page(request, "nothing", HTTPStatus.NOT_FOUND, picture=picture, title=title, message=message)


async def _rows(request: Request, **wanted: Any) -> list[Invocation]:
    def read() -> list[Invocation]:
        with history.reading(facts.of(request).ledger) as db:
            return history.latest(db, **wanted) if db is not None else []

    return await asyncio.to_thread(read)


def _one(request: Request, id: str) -> Invocation | None:
    with history.reading(facts.of(request).ledger) as db:
        return history.one(db, id) if db is not None else None


def _busy(request: Request, function: str) -> tuple[int, int]:
    """Its invocations in the last minute, and the most instances it has had."""
    with history.reading(facts.of(request).ledger) as db:
        if db is None:
            return 0, 0
        return history.a_minute(db, function, int(time.time() * 1000)), history.peak(db, function)


def routes() -> list[BaseRoute]:
    """Every page and what belongs to it."""
    return [
        Route("/", _page(_overview)),
        Route("/functions/{route:path}", _page(_function)),
        Route("/invocations", _page(_invocations)),
        Route("/invocations/{id}", _page(_invocation)),
        Route("/errors", _page(_errors)),
        Route("/logs", _page(_logs)),
        Route("/secrets", _page(_secrets)),
        Route("/playground", _page(_playground)),
        Mount("/static", look.Files()),
    ]
