"""What goes over to a provider: whatever a function writes, the key goes to one host and some paths of it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.broker import wire
from lampyr.broker.desk import Provider, Refused

PLAIN: dict[str, Any] = {"secret": "KEY", "key": "sk-real", "models": None, "timeout": 9.0, "retries": 0}
OPENAI = Provider(name="openai", kind="openai", base_url="https://api.example/v1", paths=None, **PLAIN)
OPEN = Provider(name="openai", kind="openai", base_url="https://api.example/v1", paths=("/files",), **PLAIN)
ANTHROPIC = Provider(name="a", kind="anthropic", base_url="http://[::1]:81", paths=None, **PLAIN)


@pytest.mark.parametrize(
    ("provider", "method", "rest", "target"),
    [
        (OPENAI, "POST", "/chat/completions", b"/v1/chat/completions"),
        (OPENAI, "GET", "/models/gpt-5:mini?a=b", b"/v1/models/gpt-5:mini?a=b"),
        (ANTHROPIC, "POST", "/v1/messages?beta=true", b"/v1/messages?beta=true"),
        (OPEN, "GET", "/files/f-1/content", b"/v1/files/f-1/content"),
    ],
)
def test_what_may_be_called(provider: Provider, method: str, rest: str, target: bytes) -> None:
    assert wire.address(provider, method, rest)[3] == target


@pytest.mark.parametrize(
    ("provider", "method", "rest"),
    [
        (OPENAI, "GET", "/chat/completions"),
        (OPENAI, "DELETE", "/models/ft-mine"),
        (OPENAI, "POST", "/files"),
        (OPENAI, "POST", "/chat/completions/../../files"),
        (OPENAI, "GET", "/models/%2e%2e/files"),
        (OPENAI, "GET", "/models"[1:]),
        (OPEN, "GET", "/files-of-others"),
        (OPEN, "DELETE", "/files/f-1"),
        (OPEN, "POST", "/chat/completions"),
    ],
)
def test_what_may_not(provider: Provider, method: str, rest: str) -> None:
    with pytest.raises(Refused):
        wire.address(provider, method, rest)


@given(st.text("/.%?#@:\\ab1", max_size=20), st.sampled_from(["/models", "/models/", "/chat/completions", ""]))
def test_no_text_leads_elsewhere(more: str, start: str) -> None:
    try:
        scheme, host, port, target = wire.address(OPENAI, "GET", start + more)
    except Refused:
        return
    path = target.partition(b"?")[0]
    assert (scheme, host, port) == (b"https", b"api.example", None)
    assert path == b"/v1/models" or path.startswith(b"/v1/models/")
    assert not {b"", b".", b".."} & set(path[1:].split(b"/"))


def test_the_key_takes_the_place_of_the_placeholder() -> None:
    sent = [(b"authorization", b"Bearer lampyr-1"), (b"x-api-key", b"lampyr-1"), (b"openai-beta", b"x")]
    assert (b"authorization", b"Bearer sk-real") in wire.request_headers(OPENAI, sent)
    assert (b"x-api-key", b"sk-real") in wire.request_headers(ANTHROPIC, sent)
    for provider in (OPENAI, ANTHROPIC):
        headers = wire.request_headers(provider, sent)
        assert (b"openai-beta", b"x") in headers
        assert b"lampyr-1" not in b"".join(value for _, value in headers)


def ask(body: bytes, path: str = "/chat/completions") -> wire.Question:
    return wire.Question.of("POST", path, [], body)


@pytest.mark.parametrize(
    "body", [b' \r\n\t{"model": "m"}', b'\xef\xbb\xbf{"model": "m"}', '{"model": "m"}'.encode("utf-16")]
)
def test_a_model_is_found_in_json_however_it_begins(body: bytes) -> None:
    assert ask(body).model == "m"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], b'{"model": "free", "model": "dear"}'),
        ([], b' {"model": "dear"'),
        ([(b"content-encoding", b"gzip")], b"\x1f\x8b\x08"),
    ],
)
def test_what_could_be_read_in_another_way_is_not_passed_on(headers: wire.Headers, body: bytes) -> None:
    """Nobody could say what it costs: a budget of dollars would not be used by it."""
    one = Provider(name="o", kind="openai", base_url="https://x", paths=None, **PLAIN)
    with pytest.raises(Refused, match="compressed, broken JSON, or"):
        wire.allow(one, wire.Question.of("POST", "/chat/completions", headers, body))


def test_a_form_is_passed_on() -> None:
    one = Provider(name="o", kind="openai", base_url="https://x", paths=None, **PLAIN)
    wire.allow(one, ask(b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--x--\r\n'))


def test_a_model_that_is_said_twice_is_none() -> None:
    one = Provider(name="o", kind="openai", base_url="https://x", paths=None, **{**PLAIN, "models": ("small",)})
    wire.allow(one, ask(b'{"model": "small"}'))
    for body in (
        b'{"model": "large"}',
        b'{"model": "small", "model": "large"}',
        b"model=small",
        b'[{"model": "small"}]',
    ):
        with pytest.raises(Refused):
            wire.allow(one, ask(body))


def test_a_model_in_the_path_is_the_one_that_answers() -> None:
    """As in Azure's API, which does not look at the one in the body."""
    path = "/openai/deployments/large/chat/completions?api-version=1"
    assert ask(b'{"messages": []}', path).model == ask(b'{"model": "small"}', path).model == "large"
    assert ask(b'{"model": "small"}', "/deployments/chat/completions").model == "chat"
    assert ask(b'{"model": "small"}', "/x-deployments/a/b").model == "small"
    azure = Provider(
        name="azure",
        kind="openai-compatible",
        base_url="https://x",
        paths=("/openai/deployments",),
        **{**PLAIN, "models": ("small",)},
    )
    wire.allow(azure, ask(b"{}", path.replace("large", "small")))
    for body in (b"{}", b'{"model": "small"}'):
        with pytest.raises(Refused, match="may be asked for these models: small"):
            wire.allow(azure, ask(body, path))
    with pytest.raises(Refused):
        wire.allow(azure, wire.Question.of("GET", path, [], b""))
    assert [one.name for one, _ in wire.plan(OPEN, (azure,), ask(b'{"model": "large"}', path))] == ["openai"]


def test_a_model_in_the_base_url_is_the_one_that_answers() -> None:
    base_url = "https://x/openai/deployments/large"
    azure = Provider(
        name="azure", kind="openai-compatible", base_url=base_url, paths=None, **{**PLAIN, "models": ("small",)}
    )
    body = b'{"model": "small"}'
    asked = wire.Question.of("POST", "/chat/completions", [], body, base_url)
    assert asked.model == "large"
    with pytest.raises(Refused, match="may be asked for these models: small"):
        wire.allow(azure, asked)
    # Who is asked instead names none in its address: there the body says it again; and the other way round.
    plan = wire.plan(azure, (OPENAI,), asked)
    assert [(one.name, question.model) for one, question in plan] == [("azure", "large"), (OPENAI.name, "small")]
    free = dataclasses.replace(azure, models=None)
    plan = wire.plan(OPENAI, (free,), wire.Question.of("POST", "/chat/completions", [], body, OPENAI.base_url))
    assert [question.model for _, question in plan] == ["small", "large"]


def test_the_key_is_where_azure_wants_it() -> None:
    azure = Provider(name="azure", kind="openai-compatible", base_url="https://x", paths=None, **PLAIN)
    assert (b"api-key", b"sk-real") in wire.request_headers(azure, [(b"api-key", b"lampyr-1")])
    assert (b"authorization", b"Bearer sk-real") in wire.request_headers(azure, [(b"authorization", b"lampyr-1")])
    assert (b"authorization", b"Bearer sk-real") in wire.request_headers(OPENAI, [(b"api-key", b"lampyr-1")])


def test_only_what_was_tried_again_is_not_to_be_tried_again() -> None:
    assert wire.TRIED in wire.response_headers(503, [])
    assert wire.response_headers(429, [(b"Retry-After", b"1")]) == [(b"retry-after", b"1")]


def test_openai_is_asked_for_the_tokens_of_a_stream() -> None:
    def told(asked: object, path: str = "/chat/completions") -> tuple[object, bool]:
        ((_, question),) = wire.plan(OPENAI, (), ask(json.dumps(asked).encode(), path))
        return json.loads(question.body), question.trimmed

    stream = {"model": "m", "stream": True}
    assert told(stream) == ({**stream, "stream_options": {"include_usage": True}}, True)
    asked = {**stream, "stream_options": {"include_usage": True}}
    assert told(asked) == (asked, False)
    assert told({"model": "m"}) == ({"model": "m"}, False)
    assert told(stream, "/responses") == (stream, False)


def test_others_are_asked_in_their_order_for_a_model_that_they_have() -> None:
    own = {**PLAIN, "models": ("their-large", "their-small")}
    second = Provider(name="second", kind="openai-compatible", base_url="https://x/v1", paths=None, **own)
    plan = wire.plan(OPENAI, (second, ANTHROPIC), ask(b'{"model": "large", "n": 2}'))
    assert [(one.name, question.asked) for one, question in plan] == [
        ("openai", {"model": "large", "n": 2}),
        ("second", {"model": "their-large", "n": 2}),
    ]
    assert [question.model for _, question in wire.plan(second, (), ask(b'{"model": "their-small"}'))] == [
        "their-small"
    ]


def test_an_invocation_is_named_by_a_whole_id_or_not_at_all() -> None:
    id = b"0198c0ffee0" + b"a" * 13
    assert wire.invocation([(b"x-lampyr-id", id)]) == id.decode()
    for value in (b"", b"x" * 24, id + b"0", id.upper()):
        assert wire.invocation([(b"x-lampyr-id", value)]) == ""
