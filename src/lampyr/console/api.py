"""The console's JSON API: a table of endpoints, from which routes and the OpenAPI description are made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lampyr.console import facts
from lampyr.console.guard import MAX_BODY_BYTES, Refused
from lampyr.ledger import store, usage
from lampyr.version import VERSION

Schema = Mapping[str, Any]
Answer = Callable[[Request, dict[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of the query. `schema`: of JSON Schema type, enum, minimum, maximum, maxLength and default are checked."""

    name: str
    schema: Schema
    help: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`answer(request, query)` gives the payload or a Response; `query` has the checked parameters, with defaults."""

    path: str
    help: str
    answer: Answer
    result: Schema
    parameters: tuple[Parameter, ...] = ()
    method: str = "GET"
    body: Schema | None = None
    media_type: str = "application/json"

    def route(self) -> Route:
        async def serve(request: Request) -> Response:
            found = await self.answer(request, query_of(request, self.parameters))
            return found if isinstance(found, Response) else JSONResponse(found)

        return Route(self.path, serve, methods=[self.method])


# --- the query


def query_of(request: Request, parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Raises Refused (400) for a value that its schema has not."""
    return {one.name: _value(one, request.query_params.get(one.name)) for one in parameters}


def _value(parameter: Parameter, text: str | None) -> Any:
    schema = parameter.schema
    if text is None:
        if parameter.required:
            raise _bad(parameter, "is missing")
        return schema.get("default")
    value: Any = text
    if schema["type"] in ("integer", "number"):
        try:
            value = int(text) if schema["type"] == "integer" else float(text)
        except ValueError:
            raise _bad(parameter, f"is not of type {schema['type']}") from None
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            raise _bad(parameter, f"is not from {schema.get('minimum')} to {schema.get('maximum')}")
    elif schema["type"] == "boolean":
        if text not in ("true", "false"):
            raise _bad(parameter, "is neither true nor false")
        value = text == "true"
    elif len(text) > schema.get("maxLength", len(text)):
        raise _bad(parameter, f"has more than {schema['maxLength']} characters")
    if value not in schema.get("enum", (value,)):
        raise _bad(parameter, f"is none of {', '.join(map(str, schema['enum']))}")
    return value


def _bad(parameter: Parameter, what: str) -> Refused:
    return Refused(400, "BAD_REQUEST", f"The parameter {parameter.name} {what}.")


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that came as the body. Raises Refused."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "BAD_REQUEST", "The body must be a JSON object.")
    return body


# --- the endpoints


async def _functions(request: Request, query: dict[str, Any]) -> Any:
    return await facts.of(request).control.ask("ps")


async def _usage(request: Request, query: dict[str, Any]) -> Any:
    totals = await asyncio.to_thread(store.totals, facts.of(request).ledger, query["by"])
    return usage.report(totals.groups, query["by"])


def listed(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def record(**fields: Schema) -> Schema:
    """An object that has these fields; more may be added (SPEC 5)."""
    return {"type": "object", "properties": fields, "required": list(fields)}


TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}

_INSTANCE = record(id=TEXT, pid=WHOLE, state=TEXT, in_flight=WHOLE, memory_mb=NUMBER)
_FUNCTION = record(
    function=TEXT, runtime=TEXT, deployment=TEXT, snapshot=TEXT, waiting=WHOLE, instances=listed(_INSTANCE)
)
_FIGURES = dict.fromkeys(("invocations", "errors", "cold_starts", "billed_ms", "cpu_ms", "gb_s", "cost_usd"), NUMBER)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/api/functions",
        "What runs: the functions and their instances, as `lampyr ps --json` prints them.",
        _functions,
        record(functions=listed(_FUNCTION)),
    ),
    Endpoint(
        "/api/usage",
        "What was used, as `lampyr usage --json` prints it.",
        _usage,
        record(groups=listed({"type": "object"}), total=record(**_FIGURES)),
        (Parameter("by", {"type": "string", "enum": list(usage.BY), "default": "function"}, "what to group by"),),
    ),
)


# --- the description


def routes(endpoints: Iterable[Endpoint]) -> list[Route]:
    """Each of these, and the description of all."""
    endpoints = tuple(endpoints)

    async def description(request: Request, query: dict[str, Any]) -> Any:
        return openapi(endpoints)

    return [one.route() for one in (*endpoints, Endpoint("/api/openapi.json", "", description, {}))]


_ERROR = record(error=record(code=TEXT, message=TEXT, hint=TEXT))
_ERRORS = {
    400: "a parameter or the body is not what it must be",
    401: "no token",
    403: "wrong Host or Origin",
    404: "there is no such thing",
    405: "it has another method",
    413: f"a body of more than {MAX_BODY_BYTES} bytes",
    429: "too many at once",
    502: "the gateway has not answered",
    503: "the server cannot answer at the moment",
}


def openapi(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The OpenAPI 3.1 description of `endpoints`."""
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lampyr console", "version": VERSION},
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _operation(one: Endpoint) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "summary": one.help,
        "operationId": f"{one.method} {one.path}",
        "parameters": [*map(_in_query, one.parameters), *_in_path(one.path)],
        "responses": {"200": {"description": "as asked", "content": {one.media_type: {"schema": one.result}}}}
        | {str(status): {"description": why, "content": error} for status, why in _ERRORS.items()},
    }
    if one.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": one.body}}}
    return operation


def _in_query(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": "query",
        "required": one.required,
        "description": one.help,
        "schema": one.schema,
    }


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
