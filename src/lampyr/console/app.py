"""The console as an application: the guard, and behind it pages, the API and `/metrics`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from lampyr.console import api, following, look, metrics, pages, play, reports
from lampyr.console.facts import Facts
from lampyr.console.guard import Guard, Refused, refusal
from lampyr.console.token import Token
from lampyr.errors import LampyrError


def build(facts: Facts, token: Token, port: int) -> ASGIApp:
    """The ASGI application of the console at `port`."""
    endpoints = (*api.ENDPOINTS, *reports.ENDPOINTS, *play.ENDPOINTS)
    app = Starlette(
        routes=[*api.routes(endpoints), *metrics.routes(), *following.routes(), *pages.routes()],
        exception_handlers={HTTPException: _failed, Refused: refused, LampyrError: _unanswered, Exception: _broken},
    )
    app.state.facts = facts
    return Guard(app, token, port)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if look.is_read_by_a_person(request):
        return look.trouble(request, error.status_code, f"{error.detail}.", "There is no such page.")
    answer = refusal(error.status_code, error.detail.upper().replace(" ", "_"), f"{error.detail}.")
    answer.headers.update(error.headers or {})
    return answer


async def _unanswered(request: Request, error: Exception) -> Response:
    assert isinstance(error, LampyrError)
    if look.is_read_by_a_person(request):
        return look.trouble(request, 503, "The server does not answer", error.message, error.hint)
    return refusal(503, error.code, error.message, error.hint)


async def _broken(request: Request, error: Exception) -> Response:
    return refusal(500, "INTERNAL_ERROR", "The console failed.", "the server's log has the traceback; please report it")


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error.status, error.code, error.message, error.hint)
