"""How pages are made: templates in which everything is escaped, and the frame that all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from lampyr.console import timeline, wording
from lampyr.gateway.head import CONSOLE_COOKIE
from lampyr.version import VERSION

_HERE = Path(__file__).parent
THEMES = ("light", "dark")
# Like the console's own cookie it does not reach functions (gateway/head.py).
THEME_COOKIE = f"{CONSOLE_COOKIE}theme"


def function_url(route: str, **query: str) -> str:
    """The page of a function. Its route is the path, so that a person can read the address."""
    text = f"/functions{quote(route, safe='/')}"
    return f"{text}?{urlencode(query)}" if query else text


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_templates.globals.update(function_url=function_url, version=VERSION)
_templates.filters["pieces"] = timeline.pieces
_templates.filters.update(
    {
        name: getattr(wording, name)
        for name in ("ms", "duration", "count", "usd", "size", "percent", "clock", "iso", "ago", "number_of")
    }
)


def page(request: Request, template: str, status: int = 200, **shown: Any) -> Response:
    """The page that a template makes of what it is given."""
    theme = request.cookies.get(THEME_COOKIE, "")
    text = _templates.get_template(f"{template}.html").render(
        path=request.url.path,
        here=str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
        theme=theme if theme in THEMES else "",
        **shown,
    )
    return HTMLResponse(text, status)


def trouble(request: Request, status: int, title: str, message: str, hint: str = "") -> Response:
    """The page that there is where nothing is known of the server."""
    theme = request.cookies.get(THEME_COOKIE, "")
    shown = {"theme": theme if theme in THEMES else "", "here": request.url.path}
    text = _templates.get_template("trouble.html").render(title=title, message=message, hint=hint, **shown)
    return HTMLResponse(text, status)


def is_read_by_a_person(request: Request) -> bool:
    """Whether somebody has opened an address, and not a program."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


class Files(StaticFiles):
    """Style sheets, scripts and fonts. A browser keeps them and asks whether they are still what they were."""

    def __init__(self) -> None:
        super().__init__(directory=_HERE / "static")

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["cache-control"] = "private, no-cache"
        return answer
