"""Answers that are kept: of which requests, for whom, how many and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampyr.broker.cache import MOST_ANSWER_BYTES, OVERHEAD_BYTES, Cache, Key, Record, key_of
from lampyr.broker.desk import Provider
from lampyr.broker.wire import Headers, Question

PLAIN: dict[str, Any] = {"secret": "KEY", "paths": None, "models": None, "timeout": 9.0, "retries": 0}
OPENAI = Provider(name="openai", kind="openai", base_url="https://api.example/v1", key="sk-real", cache=60.0, **PLAIN)
CHAT: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
DEPENDS = {"type": "web_search_20250305", "name": "web_search"}


def ask(asked: dict[str, Any], rest: str = "/chat/completions", *headers: tuple[bytes, bytes]) -> Question:
    return Question.of("POST", rest, list(headers), json.dumps(asked).encode())


def key(digest: bytes, for_s: float = 60.0) -> Key:
    return Key(digest, for_s)


def keep(cache: Cache, of: Key, body: bytes, now_s: float = 0.0, headers: Headers | None = None) -> None:
    record = Record(of)
    for at in range(0, len(body), 1_000_000):
        record.feed(body[at : at + 1_000_000])
    cache.keep(record, headers or [], now_s)


@pytest.mark.parametrize(
    "question",
    [
        ask(CHAT),
        ask({**CHAT, "temperature": 0.0, "tools": [{"type": "function", "function": {"name": "f"}}]}),
        ask({**CHAT, "temperature": 0, "tools": [{"name": "f", "input_schema": {}}]}, "/v1/messages?beta=true"),
        ask({"model": "m", "input": "Hello", "temperature": 0, "stream": False}, "/responses"),
        ask({"model": "m", "prompt": "Hello", "temperature": 0}, "/completions"),
        ask({"model": "m", "input": ["Hello"]}, "/embeddings"),
        ask({"model": "m", "input": ["Hello"]}, "/v1/embeddings"),
    ],
    ids=lambda question: question.rest,
)
def test_what_is_kept(question: Question) -> None:
    assert key_of("/a", OPENAI, question) is not None
    off = Provider(name="openai", kind="openai", base_url="https://api.example/v1", key="sk-real", **PLAIN)
    assert key_of("/a", off, question) is None, "only where the provider has a cache"


@pytest.mark.parametrize(
    "question",
    [
        ask({**CHAT, "temperature": 0.1}),
        ask({**CHAT, "temperature": False}),
        ask({**CHAT, "temperature": None}),
        ask({name: value for name, value in CHAT.items() if name != "temperature"}),
        ask({**CHAT, "stream": True}),
        ask({**CHAT, "web_search_options": {"search_context_size": "low"}}),
        ask({**CHAT, "tools": [DEPENDS]}, "/v1/messages"),
        ask({**CHAT, "tools": "all"}),
        ask({**CHAT, "previous_response_id": "resp_1"}, "/responses"),
        ask({**CHAT, "prompt": {"id": "pmpt_1"}}, "/responses"),
        ask({**CHAT, "background": True}, "/responses"),
        ask(CHAT, "/moderations"),
        ask(CHAT, "/files/embeddings"),
        ask(CHAT, "/chat/completions", (b"cache-control", b"max-age=0, No-Cache")),
        Question.of("GET", "/embeddings", [], b""),
        Question.of("POST", "/embeddings", [], b"not json"),
        Question.of("POST", "/chat/completions", [], b'{"temperature": 1, "temperature": 0}'),
    ],
    ids=lambda question: f"{question.rest} {question.body[-40:]!r}",
)
def test_what_is_never_kept(question: Question) -> None:
    assert key_of("/a", OPENAI, question) is None


# What is taken for one another where things are joined without saying where each ends: one text cut in two places.
CUT = st.integers(0, 5).map(lambda at: ("/a1:b"[:at], "/a1:b"[at:]))
PAIRS = CUT | st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from(["one", "two"]))
HEADERS = st.lists(st.integers(0, 5).map(lambda at: (b"xab:1"[:at], b"xab:1"[at:])), max_size=3)
KEYS = st.sampled_from(["a", "b"])
QUERIES = st.sampled_from(["", "?", "?a=b", "?a=b&c", "?temperature=1"])
BODIES = st.dictionaries(st.sampled_from(["model", "input", "x"]), st.sampled_from(["", "a", "1:x", 0]), min_size=1)
REQUESTS = st.tuples(PAIRS, KEYS, KEYS, QUERIES, HEADERS, BODIES)


def digest_of(request: tuple[tuple[str, str], str, str, str, Headers, dict[str, Any]]) -> bytes:
    (route, name), base_url, secret, query, headers, asked = request
    provider = Provider(name=name, kind="openai", base_url=base_url, key=secret, cache=1.0, **PLAIN)
    found = key_of(route, provider, ask(asked, "/embeddings" + query, *headers))
    assert found is not None
    return found.digest


@settings(max_examples=1000)
@given(REQUESTS, st.data())
def test_two_different_requests_never_share_a_key(request_: Any, data: st.DataObject) -> None:
    changed = data.draw(st.sets(st.integers(0, len(request_) - 1)))
    other = tuple(
        two if at in changed else one for at, (one, two) in enumerate(zip(request_, data.draw(REQUESTS), strict=True))
    )
    # As written: the order of a dictionary is another body.
    same = json.dumps(request_, default=repr) == json.dumps(other, default=repr)
    assert (digest_of(request_) == digest_of(other)) == same


def test_no_function_has_the_key_of_another() -> None:
    assert key_of("/a", OPENAI, ask(CHAT)) != key_of("/b", OPENAI, ask(CHAT))


def test_what_differs_each_time_without_a_meaning_is_passed_over() -> None:
    one = ask(CHAT, "/chat/completions", (b"traceparent", b"00-1"), (b"x-stainless-retry-count", b"0"))
    two = ask(CHAT, "/chat/completions", (b"traceparent", b"00-2"), (b"x-stainless-retry-count", b"1"))
    assert key_of("/a", OPENAI, one) == key_of("/a", OPENAI, two)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"choices": [',
        b"[1]",
        b'{"error": {"message": "overloaded"}}',
        b'{"status": "in_progress"}',
        b'{"status": "failed"}',
        b'{"a": "' + b"x" * MOST_ANSWER_BYTES + b'"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_an_answer_that_is_not_a_whole_one_is_not_kept(body: bytes) -> None:
    cache = Cache()
    keep(cache, key(b"a"), body)
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_headers_about_the_first_call_are_not_given_again() -> None:
    cache = Cache()
    told = [(b"Content-Type", b"application/json"), (b"Retry-After", b"9"), (b"x-ratelimit-remaining-tokens", b"3")]
    keep(cache, key(b"a"), b"{}", headers=[*told, (b"anthropic-ratelimit-tokens-limit", b"9"), (b"x-request-id", b"r")])
    found = cache.find(key(b"a"), 0.0)
    assert found and found.headers == [(b"Content-Type", b"application/json"), (b"x-request-id", b"r")]


def test_time() -> None:
    cache = Cache()
    keep(cache, key(b"a", 10.0), b"{}", now_s=100.0)
    keep(cache, key(b"b", 1000.0), b"{}", now_s=100.0)
    assert cache.find(key(b"a"), 109.9) and not cache.find(key(b"a"), 110.0)
    assert len(cache) == 1 and cache.size_bytes == OVERHEAD_BYTES + 2
    keep(cache, key(b"c", 10.0), b"{}", now_s=120.0)
    keep(cache, key(b"d", 10.0), b"{}", now_s=200.0)  # nobody has asked for c any more
    assert len(cache) == 2


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(0, 3000), st.booleans()), max_size=30))
def test_what_was_not_asked_for_longest_goes_first(steps: list[tuple[bytes, int, bool]]) -> None:
    most_bytes = 6000
    cache, expected = Cache(most_bytes), dict[bytes, int]()  # in the order of their last use
    for digest, size, asks in steps:
        if asks:
            found = cache.find(key(digest), 0.0)
            assert (found is not None) == (digest in expected)
            if found:
                expected[digest] = expected.pop(digest)
            continue
        body = b'{"a": "' + b"x" * size + b'"}'
        keep(cache, key(digest), body)
        expected.pop(digest, None)
        expected[digest] = OVERHEAD_BYTES + len(body)
        while sum(expected.values()) > most_bytes:
            expected.pop(next(iter(expected)))
        assert cache.size_bytes == sum(expected.values()) <= most_bytes
    assert len(cache) == len(expected)
