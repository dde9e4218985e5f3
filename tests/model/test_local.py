"""The real model, through the OpenAI SDK: it answers, it streams, and it makes no token for a client that left."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import psutil
import pytest

pytestmark = pytest.mark.alone

ID = "smollm2-135m-instruct"
SECRET = "xylophone-4711"
QUESTION: Any = [{"role": "user", "content": f"What is a firefly? ({SECRET})"}]
# Tokens without end: llama.cpp's own switch, so that it is the client that ends the answer.
ENDLESS: Any = {"ignore_eos": True}


def ask(local: Any, **more: Any) -> Any:
    return local.client.chat.completions.create(**{"model": "local", "messages": QUESTION, **more})


def test_it_answers_with_usage_under_any_name_and_tells_its_own(local: Any) -> None:
    for name in ("local", "smollm2", "gpt-5"):
        answer = ask(local, model=name, max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.model == ID
        assert answer.usage.completion_tokens == 8
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_the_first_token_arrives_long_before_the_last(local: Any) -> None:
    times = []
    text = ""
    for chunk in ask(local, stream=True, max_tokens=40, extra_body=ENDLESS, stream_options={"include_usage": True}):
        if chunk.choices and chunk.choices[0].delta.content:
            times.append(time.monotonic())
            text += chunk.choices[0].delta.content
    assert "fire" in text.lower()
    assert len(times) >= 30
    assert chunk.usage.completion_tokens == 40
    # Forty tokens that came in one piece would have arrived within a millisecond of one another.
    assert times[-1] - times[0] > 0.05


def test_the_echo_is_there_as_well(local: Any) -> None:
    assert [one.id for one in local.client.models.list()] == [ID, "echo"]
    assert local.client.models.retrieve("local").id == ID
    assert ask(local, model="echo").model == "echo"


def test_two_at_once_are_both_answered(local: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: ask(local, max_tokens=10), range(3)))
    assert [answer.usage.completion_tokens for answer in answers] == [10, 10, 10]


def test_what_it_cannot_answer_is_an_error_of_openai_s_shape(local: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(local, messages=[{"role": "user", "content": "word " * 3000}])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as caught:
        ask(local, temperature="hot")
    assert caught.value.type == "invalid_request_error"


def cpu_seconds(running: Any) -> float:
    times = psutil.Process(running.process.pid).cpu_times()
    return float(times.user + times.system)


def cpu_until_quiet(running: Any) -> float:
    """CPU the process used until it did nothing for a while."""
    start = before = cpu_seconds(running)
    for _ in range(240):
        time.sleep(0.25)
        if (now := cpu_seconds(running)) - before < 0.03:
            return now - start
        before = now
    raise AssertionError("still computing after a minute")


def bound(seconds: float) -> float:
    """CPU seconds that leave room for llama.cpp's look at its callers, once a second, on a machine of any speed."""
    return max(seconds * 2.5, 4.0)


def test_a_client_that_leaves_a_stream_stops_the_generation(local: Any) -> None:
    whole = cpu_seconds(local)
    ask(local, max_tokens=60, extra_body=ENDLESS)
    whole = cpu_seconds(local) - whole
    with ask(local, stream=True, max_tokens=500, extra_body=ENDLESS) as stream:
        next(iter(stream))
    assert cpu_until_quiet(local) < bound(whole)  # eight times `whole` if it went on


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_token_stops_the_prompt(local: Any, stream: bool) -> None:
    ask(local, max_tokens=1)
    long = [{"role": "user", "content": "moon " * 300}]
    whole = cpu_seconds(local)
    ask(local, messages=long, max_tokens=1)
    whole = cpu_seconds(local) - whole
    body = json.dumps({"messages": [{"role": "user", "content": "night " * 1600}], "stream": stream}).encode()
    started = cpu_seconds(local)
    client = local.send(body)
    while cpu_seconds(local) - started < 0.1:  # it has begun
        time.sleep(0.02)
    client.close()
    assert cpu_until_quiet(local) < bound(whole)  # five times `whole` if it went on


def test_nothing_anybody_wrote_is_logged(local: Any) -> None:
    ask(local, max_tokens=4)
    with pytest.raises(openai.BadRequestError):
        ask(local, temperature=SECRET)
    with ask(local, stream=True, extra_body=ENDLESS) as stream:
        next(iter(stream))
    local.process.terminate()
    local.process.wait()
    assert local.log.read_text() == ""
