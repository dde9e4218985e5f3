"""Whatever bytes a function sends: a question, or a refusal in words, and the key for one host only."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lampyr.broker import wire
from lampyr.broker.desk import Provider, Refused
from lampyr.broker.estimate import estimate
from lampyr.broker.usage import Trim, Usage

PLAIN: dict[str, Any] = {"secret": "KEY", "key": "sk-real-key", "timeout": 9.0, "retries": 0, "paths": None}
FIRST = Provider(name="openai", kind="openai", base_url="https://api.example/v1", models=None, **PLAIN)
OTHER = Provider(name="other", kind="echo", base_url="http://127.0.0.1:9", models=("one",), **PLAIN)

FIELDS = st.sampled_from(["model", "stream", "stream_options", "messages", "input", "max_tokens", "n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
BODIES = st.binary(max_size=60) | st.dictionaries(FIELDS, VALUES, max_size=4).map(lambda one: json.dumps(one).encode())
PATHS = st.sampled_from(["/chat/completions", "/completions", "/responses", "/models/x"]) | st.text(max_size=30)
NAMES = st.sampled_from([b"authorization", b"x-api-key", b"cookie", b"host", b"x-lampyr-id", b"openai-beta", b"via"])
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=30)), max_size=6)
SMALL = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SMALL
@given(st.sampled_from(["GET", "POST", "DELETE"]), PATHS, HEADERS, BODIES)
def test_a_request(method: str, path: str, headers: wire.Headers, body: bytes) -> None:
    question = wire.Question.of(method, path, headers, body)
    assert len(question.model) <= 80 and wire.invocation(headers).isascii()
    found = estimate(question.path, question.asked, len(body))
    assert 0 <= found.prompt <= found.most_prompt and 0 <= found.most_answer < 2**38
    try:
        wire.allow(OTHER, question)
        wire.address(FIRST, method, path)
    except Refused as refused:
        json.loads(wire.error(refused))
        return
    for provider, asked in wire.plan(FIRST, (OTHER,), question):
        _, host, _, target = wire.address(provider, asked.method, asked.rest)
        assert host in (b"api.example", b"127.0.0.1") and target.startswith(b"/v1/")
        sent = wire.request_headers(provider, headers)
        assert [value for name, value in sent if name in (b"authorization", b"x-api-key")] == [b"Bearer sk-real-key"]
        if asked.body != body:
            json.loads(asked.body)


@SMALL
@given(
    st.sampled_from([b"application/json", b"text/event-stream"]), st.lists(st.binary(max_size=40) | BODIES, max_size=6)
)
def test_an_answer(kind: bytes, pieces: list[bytes]) -> None:
    usage, trim, out = Usage(kind), Trim(), b""
    for piece in pieces:
        usage.feed(b"data: " + piece + b"\n\n" if kind.startswith(b"text") else piece)
        out += trim.feed(piece)
    tokens = usage.tokens(7)
    usage.end()
    assert min(tokens[:4]) >= 0 and len(out + trim.end()) <= sum(map(len, pieces))
