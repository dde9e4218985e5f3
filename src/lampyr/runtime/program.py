"""What a route file exports, looked up once in the snapshot so that no instance has to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import CO_VARARGS, Parameter, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from types import FunctionType
from typing import Any

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Handler:
    """A function of a route file and how it wants to be called: with how many arguments, and whether in a thread."""

    __slots__ = ("arity", "call", "in_thread")

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.arity = _arity(call)
        function = call if hasattr(call, "__code__") else getattr(call, "__call__", call)  # noqa: B004  an object whose class is callable
        quick = iscoroutinefunction(function) or isasyncgenfunction(function) or isgeneratorfunction(function)
        self.in_thread = not quick


def _arity(call: Callable[..., Any]) -> int:
    if type(call) is FunctionType and not vars(call):  # as below, and writes into 45 pages less
        return 2 if call.__code__.co_flags & CO_VARARGS else min(2, call.__code__.co_argcount)
    try:
        parameters = signature(call).parameters.values()
    except ValueError:  # a builtin without a signature
        return 1
    if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    return min(2, sum(parameter.kind in POSITIONAL for parameter in parameters))


def mount_depth(route: str) -> int | None:
    """How many segments of a path come before the catch-all of `route` ("/api/[[...path]]": 1); None without one."""
    segments = route.split("/")[1:]
    return len(segments) - 1 if segments[-1:] and segments[-1].startswith(("[...", "[[...")) else None


class Program:
    """The handlers of one route file by method, or its ASGI application."""

    __slots__ = ("app", "file", "methods", "mount", "stream_keepalive_s", "threads")

    def __init__(
        self,
        file: str,
        methods: Mapping[str, Callable[..., Any]],
        app: Any,
        threads: int,
        stream_keepalive_s: float = 15.0,
        route: str = "",
    ) -> None:
        self.file = file
        self.methods = {method: Handler(call) for method, call in methods.items()}
        if "GET" in self.methods:
            self.methods.setdefault("HEAD", self.methods["GET"])
        self.app = app
        self.mount = mount_depth(route)
        self.threads = threads
        self.stream_keepalive_s = stream_keepalive_s
