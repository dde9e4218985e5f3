"""The current invocation, and the helpers that need to know it: `redirect`, `not_found`, `after`, `cookies`..."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from lampyr.core.codes import CODES
from lampyr.runtime.cookies import RequestCookies, ResponseCookies

if TYPE_CHECKING:
    from lampyr.runtime.headers import Headers
    from lampyr.runtime.request import Request
    from lampyr.runtime.response import Response

D = TypeVar("D")
Hook = TypeVar("Hook", bound=Callable[[], object])

Task = tuple[Any, tuple[Any, ...], dict[str, Any]]

# What route files ask for around the snapshot; filled while they are imported, read by the snapshot.
hooks: dict[str, list[Callable[[], object]]] = {"before_snapshot": [], "after_restore": []}
_ALL = slice(None)
CO_COROUTINE = 128  # the same as in `inspect`, whose import takes longer than all of this


class Context:
    """The second argument of a handler: `params` and `after` of this invocation."""

    __slots__ = ("_cookies", "begun", "ended", "request", "set_cookies", "tasks")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tasks: list[Task] = []
        self.set_cookies: ResponseCookies | None = None
        self._cookies: Cookies | None = None
        self.begun = False  # the head of the response has left
        self.ended = False  # everything has run

    @property
    def params(self) -> dict[str, str | list[str]]:
        """The same as `request.params`."""
        return self.request.params

    @property
    def cookies(self) -> Cookies:
        """The same as `cookies()`."""
        if self._cookies is None:
            self._cookies = Cookies(self)
        return self._cookies

    def after(self, call: Callable[..., object] | Awaitable[object], *arguments: Any, **keywords: Any) -> None:
        """The same as `after(...)`."""
        if not callable(call) and not hasattr(call, "__await__"):
            raise TypeError(f"after() takes a function, not {type(call).__name__}")
        if self.ended:
            raise RuntimeError("after() was called when its invocation had ended")
        self.tasks.append((call, arguments, keywords))


current: ContextVar[Context] = ContextVar("lampyr.current")


def _context(helper: str) -> Context:
    context = current.get(None)
    if context is None:
        raise RuntimeError(f"{helper}() was called outside a request; it works inside a handler and what it calls")
    return context


class Cookies(RequestCookies):
    """The cookies of the current request, and those its response will set: what was set reads back."""

    __slots__ = ("_changes", "_context")

    def __init__(self, context: Context) -> None:
        super().__init__(context.request.cookies.all())
        self._context = context

    def set(self, name: str, value: str, **attributes: Any) -> None:
        """Set a cookie on the response; the attributes are those of `Response.cookies.set`."""
        self._writable().set(name, value, **attributes)
        self._values[name] = value

    def delete(self, name: str, *, path: str | None = "/", domain: str | None = None) -> None:
        """Tell the browser to forget a cookie."""
        self._writable().delete(name, path=path, domain=domain)
        self._values.pop(name, None)

    def _writable(self) -> ResponseCookies:
        context = self._context
        if context.begun:
            raise RuntimeError("cookies cannot be changed any more: the head of the response has left")
        if context.set_cookies is None:
            context.set_cookies = ResponseCookies()
        return context.set_cookies


class Interrupt(BaseException):
    """Ends a handler with a response. Not an Exception, so that `except Exception` lets it through."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


def redirect(url: str) -> NoReturn:
    """End the handler and answer 307 to `url`; the method and the body stay."""
    from lampyr.runtime.response import Response

    _context("redirect")
    raise Interrupt(Response.redirect(url, 307))


def permanent_redirect(url: str) -> NoReturn:
    """End the handler and answer 308 to `url`; the method and the body stay."""
    from lampyr.runtime.response import Response

    _context("permanent_redirect")
    raise Interrupt(Response.redirect(url, 308))


def not_found() -> NoReturn:
    """End the handler and answer 404 NOT_FOUND."""
    from lampyr.runtime.response import Response

    id = _context("not_found").request.id
    status, message = CODES["NOT_FOUND"]
    error = {"code": "NOT_FOUND", "message": message, "id": id}
    raise Interrupt(Response.json({"error": error}, status, {"x-lampyr-error": "NOT_FOUND"}))


def after(call: Callable[..., object] | Awaitable[object], *arguments: Any, **keywords: Any) -> None:
    """Run `call(*arguments, **keywords)` when the response has ended, in the order of the calls to `after`.

    It runs also after errors and when the client has left, within the function's `max_duration`. A sync function runs
    in a thread. Its errors go to the log.
    """
    _context("after").after(call, *arguments, **keywords)


def cookies() -> Cookies:
    """The cookies of the current request; `set` and `delete` change those of its response."""
    return _context("cookies").cookies


def headers() -> Headers:
    """The header fields of the current request, read-only."""
    return _context("headers").request.headers


class MissingVariable(KeyError):
    """An environment variable that a function asked for is not set."""

    def __str__(self) -> str:
        return str(self.args[0])


_MISSING: Any = object()


@overload
def env(name: str) -> str: ...
@overload
def env(name: str, default: D) -> str | D: ...
def env(name: str, default: Any = _MISSING) -> Any:
    """The environment variable `name`, or `default`. Raises MissingVariable (a KeyError) where there is neither."""
    value = os.environ.get(name, default)
    if value is _MISSING:
        raise MissingVariable(
            f"the environment variable {name} is not set for this function; put it into .env.local or the vault, and "
            "into the function's `secrets` where it lists them"
        )
    return value


def before_snapshot(hook: Hook) -> Hook:
    """Call `hook()` once, after the route file has been imported and before instances are forked from it.

    Of several the last one registered runs first.
    """
    hooks["before_snapshot"].append(_sync(hook))
    return hook


def after_restore(hook: Hook) -> Hook:
    """Call `hook()` in every new instance before its first request: reopen what must not be shared between them."""
    hooks["after_restore"].append(_sync(hook))
    return hook


def _sync(hook: Hook) -> Hook:
    code = getattr(hook, "__code__", None)
    if code is not None and code.co_flags & CO_COROUTINE:
        raise TypeError(f"{code.co_name} is async, and hooks run before there is an event loop; write a plain function")
    return hook


def run_hooks(when: str, registered: slice = _ALL) -> None:
    """Call the hooks of "before_snapshot", the last one first, or those of "after_restore", the first one first."""
    chosen = hooks[when][registered]
    for hook in reversed(chosen) if when == "before_snapshot" else chosen:
        hook()
