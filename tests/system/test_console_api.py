"""The console's JSON API, fuzzed from its own description: whatever is asked, the answer is one that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import Server, running

FILES = {
    "app/api/echo/route.py": "async def POST(req): return await req.text()\ndef GET(): print('seen'); return 'x'",
    "app/api/broken/route.py": "def GET(): raise ValueError('broken')",
}
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES = 25


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("api"), FILES) as server:
        for path in ("/api/echo", "/api/broken"):
            server.get(path)
        yield server


def headers(address: str) -> dict[str, str]:
    return {"authorization": f"Bearer {urlsplit(address).query.removeprefix('token=')}"}


def ask(address: str, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=40)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers(address))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def operations(address: str) -> list[str]:
    return sorted(json.loads(ask(address, "GET", "/api/openapi.json")[1])["paths"])


def test_every_answer_is_one_that_is_described(address: str) -> None:
    root = address.partition("?")[0].rstrip("/")
    described = json.loads(ask(address, "GET", "/api/openapi.json")[1])
    schema = schemathesis.openapi.from_dict(described)
    seen = set()
    found: Any
    for found in schema.get_all_operations():
        operation = found.ok()
        seen.add(operation.path)

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def fuzz(case: Any) -> None:
            answer = case.call(base_url=root, headers=headers(address))
            case.validate_response(answer, checks=list(CHECKS))

        fuzz()
    assert seen == set(operations(address))


@given(
    asked=st.fixed_dictionaries(
        {"method": st.sampled_from(["GET", "POST", "HEAD", "FETCH"]), "path": st.text(max_size=30)},
        optional={"headers": st.text(max_size=40), "body": st.text(max_size=40)},
    )
)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_the_playground_asks_the_gateway_and_nobody_else(address: str, asked: dict[str, str]) -> None:
    status, body = ask(address, "POST", "/api/play", asked)
    assert status in (200, 400)
    if status == 200:
        head, *_, end = map(json.loads, body.splitlines())
        assert head["id"] and end["end"] in ("complete", "cut")


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "GET", "path": "http://elsewhere.example/"},
        {"method": "GET", "path": "@elsewhere.example/"},
        {"method": "GET", "path": "/a HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"},
        {"method": "GET", "path": "/a\tb"},
        {"method": "CONNECT", "path": "/"},
        {"method": "GET", "path": "/", "headers": "host: elsewhere.example"},
        {"method": "GET", "path": "/", "headers": "x-forwarded-for: 1.2.3.4"},
        {"method": "GET", "path": "/", "headers": "X-Lampyr-Depth: 0"},
        {"method": "GET", "path": "/", "headers": "transfer-encoding: chunked"},
        {"method": "GET", "path": "/", "headers": "a: b\x00c"},
        {"method": "GET", "path": "/", "headers": "a b: c"},
        {"method": "POST", "path": "/", "body": "\ud800"},
        {"method": "GET", "path": "/", "headers": ["a: b"]},
        {"method": "POST", "path": "/", "body": "x" * 1_000_001},
    ],
)
def test_a_call_that_is_none_is_refused(address: str, asked: dict[str, object]) -> None:
    status, body = ask(address, "POST", "/api/play", asked)
    assert (status, json.loads(body)["error"]["code"]) == (400, "BAD_REQUEST")


def test_a_call_says_when_each_piece_came(address: str) -> None:
    status, body = ask(address, "POST", "/api/play", {"method": "POST", "path": "/api/echo", "body": "hello"})
    head, *pieces, end = map(json.loads, body.splitlines())
    assert (status, head["status"], head["type"]) == (200, 200, "text/plain;charset=UTF-8")
    assert "".join(one["text"] for one in pieces) == "hello" and end["end"] == "complete"
    assert 0 < head["ms"] <= pieces[0]["ms"] <= end["ms"]
