"""The client itself: from a method and a path to the answer of a function."""

from __future__ import annotations

import json
import os
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

from lampyr import config
from lampyr.build import environment
from lampyr.build.scan import scan
from lampyr.core.routing import Match, Missing, Moved, Refused, Router
from lampyr.errors import BuildError
from lampyr.gateway import answers
from lampyr.runtime.headers import HeaderInput, fields_of
from lampyr.runtime.load import METHODS
from lampyr.testing.body import body_of, pairs_of
from lampyr.testing.call import Answer, Call, too_large
from lampyr.testing.host import Host, Loop
from lampyr.testing.place import Place
from lampyr.types import Function, Problem


class Client:
    """Calls the functions of the project at `project`. Close it, or use it in a `with`: then `os.environ`, `sys.path`
    and the imported route files are as before.

    `headers` go with every request. `environ` are environment variables that win over the project's .env files, which
    are read in mode "test". Raises BuildError or ConfigError for a project that could not be deployed.
    """

    def __init__(
        self,
        project: str | Path,
        *,
        headers: HeaderInput | None = None,
        environ: Mapping[str, str] | None = None,
        base_url: str = "http://testserver",
    ) -> None:
        self._origin = base_url.rstrip("/")
        self._headers = fields_of(headers) if headers is not None else []
        root = Path(project).resolve()
        settings = config.load(root)
        found = scan(root, settings)
        if found.errors:
            raise BuildError(_listed(found.errors), "`lampyr build` names every problem of a project")
        variables = environment.read(root, "test", {**os.environ, "LAMPYR_ENV": "test", **(environ or {})}).values
        self._router = Router(found.functions)
        self._place = Place(root, found.app.parent, {**variables, **(environ or {})})
        self._loop = Loop()
        self._hosts: dict[str, Host] = {}
        self._keepalive_s = settings.server.stream_keepalive
        self._end = weakref.finalize(self, _end, self._hosts, self._loop, self._place)

    def close(self) -> None:
        """End lifespans and the loop; put the process back as it was."""
        self._end()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, path: str, **options: Any) -> Answer:
        """`request("GET", ...)`."""
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> Answer:
        """`request("HEAD", ...)`."""
        return self.request("HEAD", path, **options)

    def options(self, path: str, **options: Any) -> Answer:
        """`request("OPTIONS", ...)`."""
        return self.request("OPTIONS", path, **options)

    def post(self, path: str, **options: Any) -> Answer:
        """`request("POST", ...)`."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> Answer:
        """`request("PUT", ...)`."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Answer:
        """`request("PATCH", ...)`."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        """`request("DELETE", ...)`."""
        return self.request("DELETE", path, **options)

    def request(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request and wait until the response is complete and `after` has run. Redirects are not followed.

        Options: `query` (a mapping or pairs), `headers`, `cookies` (a mapping), and one of `json`, `data` (a mapping
        for a form, str or bytes for a body, an iterable of bytes for one that arrives in pieces) or `files` (name ->
        bytes, (filename, bytes) or (filename, bytes, type); together with a mapping as `data`). Raises Cut where the
        function fails after its first byte.
        """
        call = self._call(method, path, options)
        try:
            answer = call.head()
            _ = answer.bytes
        finally:
            call.close()
        return answer

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[Answer]:
        """As `request`, but the answer is there with its head, and its chunks can be read one by one.

        Leaving the `with` before the last of them is a client that leaves: the handler is cancelled.
        """
        call = self._call(method, path, options)
        try:
            yield call.head()
        finally:
            call.close()

    def _call(self, method: str, path: str, options: dict[str, Any]) -> Call:
        body, fields = body_of(options)
        fields = [*self._headers, *fields_of(options.pop("headers", None) or ()), *fields]
        if cookies := options.pop("cookies", None):
            fields += (b"cookie", "; ".join(f"{name}={quote(value)}" for name, value in cookies.items()).encode())
        target = quote(path, safe="/%:?#[]@!$&'()*+,;=~\\").partition("#")[0]
        if query := options.pop("query", None):
            target += ("&" if "?" in target else "?") + urlencode(list(pairs_of(query)), doseq=True)
        if options:
            raise TypeError(f"unknown options of a request: {', '.join(sorted(options))}")
        return self._route(method, target, fields, body)

    def _route(self, method: str, target: str, fields: list[bytes], body: bytes | Iterable[bytes]) -> Call:
        id = uuid.uuid4().hex[:24]
        where = self._router.resolve(target)
        if isinstance(where, Moved):
            return Call(id, answers.moved(where.location))
        if isinstance(where, Refused):
            return Call(id, answers.error("BAD_REQUEST", where.message, id))
        if isinstance(where, Missing):
            return Call(id, answers.error("NOT_FOUND", None, id))
        if method not in METHODS:
            return Call(id, answers.error("BAD_REQUEST", None, id))
        function = where.function
        allowed = {*function.methods, "OPTIONS", *(("HEAD",) if "GET" in function.methods else ())}
        if not function.asgi and method not in function.methods and (method != "HEAD" or "GET" not in allowed):
            allow = (b"allow", ", ".join(sorted(allowed)).encode())
            if method == "OPTIONS":
                return Call(id, (204, [allow], b""))
            return Call(id, answers.error("METHOD_NOT_ALLOWED", None, id, allow))
        if isinstance(body, bytes) and len(body) > function.settings.max_body:
            return Call(id, too_large(function, id))
        return Call(id, None, self._host(function), function).begin(self._head(id, method, where, fields), body)

    def _head(self, id: str, method: str, match: Match, fields: list[bytes]) -> list[bytes]:
        limit_s = match.function.settings.max_duration
        if b"host" not in fields[::2]:
            fields = [b"host", self._origin.partition("://")[2].encode(), *fields]
        return [
            id.encode(),
            method.encode(),
            self._origin.encode(),
            match.path.encode(),
            match.query.encode(),
            json.dumps(dict(match.params)).encode() if match.params else b"",
            b"127.0.0.1",
            b"%.3f" % limit_s if limit_s is not None else b"",
            b"",
            *fields,
        ]

    def _host(self, function: Function) -> Host:
        """Where the function's invocations run; its file is imported at its first request."""
        host = self._hosts.get(function.route)
        if host is None:
            program = self._place.load(function, self._keepalive_s)
            host = self._hosts[function.route] = Host(program, self._loop)
        return host


def _end(hosts: dict[str, Host], loop: Loop, place: Place) -> None:
    for host in hosts.values():
        host.close()
    loop.close()
    place.leave()


def _listed(problems: Iterable[Problem]) -> str:
    lines = (f"{problem.file}:{problem.line or 1}: {problem.message}" for problem in problems)
    return "the project cannot be tested:\n" + "\n".join(lines)
