"""Who may see the console: nobody but a person, or a program, that has the token; no page of another origin.

The console listens on loopback, where every page in the person's browser and every function may knock as well:

- A page whose name was pointed at this machine (DNS rebinding) has that name in Host, and is refused.
- A page of another origin (CSRF) is told by Origin or Sec-Fetch-Site, and is refused. One on another port of this host
  is another origin too, though the browser would send the cookie along.
- The cookie is HttpOnly and SameSite=Strict, and the gateway takes it out of what functions see (gateway/head.py).
"""

from __future__ import annotations

import time
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lampyr.console.token import COOKIE_S, Token
from lampyr.gateway.head import CONSOLE_COOKIE

# Names of this machine that no name server answers for.
HOSTS = ("127.0.0.1", "localhost", "[::1]")
SAFE = ("GET", "HEAD")
MAX_BODY_BYTES = 8 * 1024 * 1024

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_NOT_KEPT = (b"cache-control", b"no-store")


class Refused(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint


def refusal(status: int, code: str, message: str, hint: str = "") -> Response:
    """An error of the console, in the shape of the command line's."""
    answer = JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status)
    if status == HTTPStatus.UNAUTHORIZED:
        answer.headers["www-authenticate"] = 'Bearer realm="lampyr console"'
    return answer


class Guard:
    """Stands before the application. `port` is the console's: cookies are one host's, and there may be several."""

    def __init__(self, app: ASGIApp, token: Token, port: int) -> None:
        self._app = app
        self._token = token
        self._cookie = f"{CONSOLE_COOKIE}{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse, one request."""
        if scope["type"] != "http":
            return
        request, begun = Request(scope), False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _add_headers(message)
            await send(message)

        try:
            answer = self._admit(request)
            await (answer or self._app)(scope, _bounded(request, receive), guarded)
        except Refused as error:
            if begun:
                raise
            await refusal(error.status, error.code, error.message, error.hint)(scope, receive, guarded)

    def _admit(self, request: Request) -> Response | None:
        """None: it may go on. Raises Refused."""
        host = request.headers.get("host", "")
        if _without_port(host) not in HOSTS:
            raise Refused(403, "WRONG_HOST", "The console is not there under this name.", "open it as 127.0.0.1")
        _check_origin(request, host)
        bearer = _bearer(request)
        if bearer is not None:
            if not self._token.opens(bearer):
                raise _unauthorized("This is not the token of this console.")
            return None
        if "token" in request.query_params and request.method in SAFE:
            return self._welcome(request)
        if not self._token.opens_with(request.cookies.get(self._cookie, ""), time.time()):
            raise _unauthorized("The console is for those who have its token.")
        if request.method not in SAFE and "origin" not in request.headers:
            raise Refused(403, "WRONG_ORIGIN", "A request that changes something says where it comes from.")
        return None

    def _welcome(self, request: Request) -> Response:
        """From now on the browser has a cookie, and its address bar and history no token."""
        if not self._token.opens(request.query_params["token"]):
            raise _unauthorized("This is not the token of this console.")
        rest = [(name, value) for name, value in parse_qsl(request.url.query, True) if name != "token"]
        # One slash at its beginning: two would name another host.
        path = "/" + request.scope["raw_path"].decode("ascii", "replace").lstrip("/\\")
        answer = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
        answer.set_cookie(
            self._cookie, self._token.cookie(time.time()), max_age=COOKIE_S, httponly=True, samesite="strict"
        )
        return answer


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name.lower() if colon and port.isdigit() else host.lower()


def _check_origin(request: Request, host: str) -> None:
    """Raises Refused for what a page of another origin has sent; a link that a person follows is none."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    followed = request.method in SAFE and request.headers.get("sec-fetch-mode") == "navigate"
    foreign = site not in ("same-origin", "none") and not (
        followed and request.headers.get("sec-fetch-dest") == "document"
    )
    if foreign or (origin is not None and origin != f"http://{host}"):
        raise Refused(403, "WRONG_ORIGIN", "The console answers its own pages only.")


def _bearer(request: Request) -> str | None:
    given = request.headers.get("authorization")
    if given is None:
        return None
    scheme, _, token = given.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(message: str) -> Refused:
    hint = "`lampyr console` prints the address with the token; programs send `Authorization: Bearer TOKEN`"
    return Refused(401, "UNAUTHORIZED", message, hint)


def _bounded(request: Request, receive: Receive) -> Receive:
    """`receive` that raises Refused where a body is too large."""
    too_large = Refused(413, "TOO_LARGE", f"The body is larger than {MAX_BODY_BYTES} bytes.")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise too_large
    seen_bytes = 0

    async def bounded() -> Message:
        nonlocal seen_bytes
        message = await receive()
        seen_bytes += len(message.get("body", b""))
        if seen_bytes > MAX_BODY_BYTES:
            raise too_large
        return message

    return bounded


def _add_headers(message: Message) -> None:
    headers = message["headers"] = [*message["headers"], *_HEADERS]
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append(_NOT_KEPT)
