"""The console's pages."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route


async def _overview(request: Request) -> Response:
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Lampyr</title><h1>Lampyr</h1>"
        '<p><a href="/metrics">Figures for Prometheus</a></p><p><a href="/api/openapi.json">The JSON API</a></p>'
    )


def routes() -> list[BaseRoute]:
    """Every page and what belongs to it."""
    return [Route("/", _overview)]
