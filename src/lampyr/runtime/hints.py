"""What to do about the errors that most people meet first."""

from __future__ import annotations

import re
import sys

_KEY = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")
_NAME = re.compile(r"cannot import name '(\w+)'")
# What Python says of calls that are written as elsewhere, or half.
_CALLS = (
    (
        re.compile(r"'coroutine' object (?!can't be awaited)"),
        "an await is missing, as in body = await req.json(), which has to stand in an async def",
    ),
    (
        re.compile(r"asyncio\.run\(\) cannot be called"),
        "write await in its place: a handler that is an async def runs in an event loop already",
    ),
    (
        re.compile(r"Response\.\w+\(\) got an unexpected keyword argument"),
        'write Response(body, status=201, headers={"content-type": "..."}); json() takes status and headers, too',
    ),
)
# What others call it. A name of theirs that is one of ours, otherwise written, is found without this list.
_ELSEWHERE = {
    "BackgroundTask": "after(function, *arguments) runs it when the response has ended",
    "BackgroundTasks": "after(function, *arguments) runs it when the response has ended",
    "Client": "from lampyr.testing import Client",
    "Depends": "call the function; cookies() and headers() work anywhere inside a request",
    "EventSourceResponse": "return sse(events)",
    "FastAPI": "import it from fastapi; a route file in a folder [[...path]] exports the application as app",
    "FileResponse": "files in public/ are served as they are; a handler returns bytes, or Response(bytes)",
    "HTMLResponse": 'return Response(page, headers={"content-type": "text/html;charset=utf-8"})',
    "HTTPException": "raise BadRequest(message), call not_found(), or return Response(text, status=403)",
    "JSONResponse": "return the dict or list, or Response.json(value, status=201)",
    "NextResponse": "it is called Response; Response.json(value) is JSON",
    "PlainTextResponse": "return the text, or Response(text)",
    "RedirectResponse": "call redirect(url), or return Response.redirect(url)",
    "StreamingResponse": "return the generator, or Response(generator)",
    "TestClient": "Client of lampyr.testing calls functions in tests",
    "UploadFile": '(await req.form())["file"] is one',
    "jsonify": "return the dict or list, or Response.json(value)",
    "waitUntil": "after(function, *arguments) runs it when the response has ended",
}


def cure(error: BaseException) -> str:
    """The way out of `error`, or "" where only the code itself can say."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _package(error.name)
    if isinstance(error, ImportError) and error.name == "lampyr" and (found := _NAME.match(str(error))):
        return _not_ours(found[1])
    if isinstance(error, AttributeError) and error.name and error.obj is sys.modules["lampyr"]:
        return _not_ours(error.name)
    return getattr(error, "lampyr_hint", "") or _call(error) or _key(error)


def _call(error: BaseException) -> str:
    """For a call that Python itself has refused."""
    if not isinstance(error, (AttributeError, RuntimeError, TypeError)):
        return ""
    text = str(error)
    return next((hint for said, hint in _CALLS if said.search(text)), "")


def _not_ours(name: str) -> str:
    """For a name that lampyr does not have."""
    import lampyr
    from lampyr.settings import did_you_mean

    told = _ELSEWHERE.get(name) or did_you_mean(name, lampyr.__all__)
    return told or f"lampyr has {', '.join(lampyr.__all__)}"


def _package(name: str) -> str:
    """For a package that is not there: what to do, and where it would have been found."""
    package = name.partition(".")[0]
    if package != name and package in sys.modules:  # the package is there, a module of it is not
        return ""
    folder = next((path for path in sys.path if path.endswith(("site-packages", "dist-packages"))), sys.prefix)
    return f"add {package!r} to the project's dependencies (requirements.txt); functions import from {folder}"


def _key(error: BaseException) -> str:
    """For a client of an AI API that was given no key. The SDKs have no class of their own for that, only words."""
    sdk, text = _origin(error), str(error)
    if sdk == "openai" and "api_key" in text:
        found = _KEY.search(text)
        key = found[0] if found else "OPENAI_API_KEY"
        return f"put {key}=... into .env.local, or [providers.local] into lampyr.toml for a model on this machine"
    if sdk == "anthropic" and ("api_key" in text or "authentication method" in text):
        return "put ANTHROPIC_API_KEY=... into .env.local"
    return ""


def _origin(error: BaseException) -> str:
    """The package that raised `error`."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    module = where.tb_frame.f_globals.get("__name__") if where is not None else None
    return module.partition(".")[0] if isinstance(module, str) else ""
