"""The log as it is written, as a stream of events for an open page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lampyr.console import api, facts, reports
from lampyr.logs.line import Line
from lampyr.logs.reading import Follower

LOOK_S = 0.25
# So that a page that is gone is noticed, and a proxy in between sees that the stream lives.
SILENCE_S = 15.0
MAX_LINES = 2000


async def _stream(request: Request) -> Response:
    query = reports.wanted(api.query_of(request, reports.LOG_PARAMETERS))
    follower = await asyncio.to_thread(Follower, facts.of(request).logs, query)
    return StreamingResponse(_events(follower), media_type="text/event-stream")


async def _events(follower: Follower) -> AsyncIterator[str]:
    yield ": lines follow\n\n"
    quiet_s = 0.0
    while True:
        found = await asyncio.to_thread(follower.poll)
        if found:
            quiet_s = 0.0
            yield f"data: {_told(found[-MAX_LINES:])}\n\n"
        elif quiet_s >= SILENCE_S:
            quiet_s = 0.0
            yield ":\n\n"
        await asyncio.sleep(LOOK_S)
        quiet_s += LOOK_S


def _told(lines: list[Line]) -> str:
    return json.dumps([line._asdict() for line in lines], separators=(",", ":"))


def routes() -> list[Route]:
    """The stream that the page of the log reads."""
    return [Route("/logs/stream", _stream)]
