"""The echo speaks the OpenAI wire format, says that it is an echo, and answers the same every time."""

from __future__ import annotations

import json
import socket
from typing import Any

import openai
import pytest

QUESTION: Any = [{"role": "user", "content": "one two three"}]
ANSWER = "This is the echo, not a language model. You wrote: one two three"


def ask(echo: Any, messages: Any = QUESTION, **more: Any) -> Any:
    return echo.client.chat.completions.create(model="any-name", messages=messages, **more)


def test_it_answers_the_same_every_time_and_names_itself(echo: Any) -> None:
    first, second = ask(echo), ask(echo)
    assert first.choices[0].message.content == ANSWER
    assert first.choices[0].finish_reason == "stop"
    assert first.model == "echo"
    assert first.model_dump(exclude={"created"}) == second.model_dump(exclude={"created"})


def test_a_stream_has_one_word_a_chunk_and_ends_with_its_reason(echo: Any) -> None:
    chunks = list(ask(echo, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len(chunks) == 2 + len(ANSWER.split())
    assert {chunk.id for chunk in chunks} == {ask(echo).id}


def test_the_stream_is_sent_word_by_word(echo: Any) -> None:
    body = json.dumps({"messages": QUESTION, "stream": True}).encode()
    with echo.send(body, "Connection: close") as client:
        pieces = []
        while piece := client.recv(65536):
            pieces.append(piece)
    assert len(pieces) > len(ANSWER.split())
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_usage_counts_words_and_comes_at_the_end_of_a_stream_that_asks_for_it(echo: Any) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 13, "total_tokens": 16}
    assert ask(echo).usage.model_dump(exclude_none=True) == usage
    chunks = list(ask(echo, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.model_dump(exclude_none=True) == usage
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert all(chunk.usage is None for chunk in ask(echo, stream=True))


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_answer_and_says_so(echo: Any, limit: str) -> None:
    answer = ask(echo, **{limit: 4})
    assert answer.choices[0].message.content == "This is the echo,"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("messages", "echoed"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "b"),
        ([{"role": "user", "content": [{"type": "text", "text": "p"}, {"type": "text", "text": "q"}]}], "p q"),
        ([{"role": "user", "content": "  "}], "(nothing)"),
        ([{"role": "system", "content": "s"}], "(nothing)"),
        ([{"role": "user", "content": "grüße 🌙"}], "grüße 🌙"),
    ],
)
def test_it_echoes_the_last_words_of_the_user(echo: Any, messages: Any, echoed: str) -> None:
    assert ask(echo, messages).choices[0].message.content.endswith(f"You wrote: {echoed}")


def test_models_has_the_echo_alone_and_local_is_its_other_name(echo: Any) -> None:
    assert [one.id for one in echo.client.models.list()] == ["echo"]
    assert echo.client.models.retrieve("local").id == "echo"
    with pytest.raises(openai.NotFoundError) as caught:
        echo.client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


POST = "POST /v1/chat/completions HTTP/1.1"


@pytest.mark.parametrize(
    ("line", "body", "status", "param"),
    [
        (POST, b"{", 400, None),
        (POST, b"[]", 400, None),
        (POST, b"{}", 400, "messages"),
        (POST, b'{"messages": []}', 400, "messages"),
        (POST, b'{"messages": ["hi"]}', 400, "messages[0]"),
        (POST, b'{"messages": [{"content": "hi"}]}', 400, "messages[0]"),
        (POST, b'{"messages": [{"role": "user"}], "stream_options": 1}', 400, "stream_options"),
        ("GET /v1/nothing HTTP/1.1", b"", 404, None),
        ("POST /v1/embeddings HTTP/1.1", b"{}", 400, "input"),
        ("POST /v1/responses HTTP/1.1", b"{}", 400, "input"),
        ("POST /v1/messages HTTP/1.1", b"{}", 400, "messages"),
        ("POST /v1/files HTTP/1.1", b"{}", 404, None),
        ("GET /v1/chat/completions HTTP/1.1", b"", 404, None),
        ("DELETE /v1/models HTTP/1.1", b"", 501, None),
        ("nonsense HTTP/1.1", b"", 400, None),
    ],
)
def test_errors_have_the_shape_of_openai(echo: Any, line: str, body: bytes, status: int, param: str | None) -> None:
    with echo.send(body, line=line) as client:
        assert_error(client, status, param)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("", 411),
        ("Content-Length: +2\r\n", 411),
        ("Content-Length: 99999999\r\n", 413),
        ("Content-Length: 2\r\nContent-Type: text/plain\r\n", 415),
    ],
)
def test_a_body_must_be_json_of_a_known_and_bearable_length(echo: Any, fields: str, status: int) -> None:
    with socket.create_connection(echo.address) as client:
        client.sendall(f"{POST}\r\nHost: test\r\n{fields}\r\n{{}}".encode())
        assert_error(client, status, None)


def assert_error(client: socket.socket, status: int, param: str | None) -> None:
    client.shutdown(socket.SHUT_WR)
    head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
