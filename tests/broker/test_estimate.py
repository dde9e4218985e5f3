"""What a request may use before it is answered."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lampyr.broker.estimate import ANSWER_TOKENS, TOKENS_A_FILE, estimate


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({}, ANSWER_TOKENS),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_output_tokens": 30, "n": 3}, 90),
        ({"max_tokens": "many"}, ANSWER_TOKENS),
        ({"max_tokens": -5, "n": -1}, ANSWER_TOKENS),
        ({"max_tokens": True}, ANSWER_TOKENS),
    ],
)
def test_the_answer(more: dict[str, object], answer: int) -> None:
    assert estimate("/chat/completions", {"model": "m", **more}, 99).most_answer == answer
    assert estimate("/embeddings", {"model": "m", **more}, 99).most_answer == 0


def test_the_prompt() -> None:
    english = "a quiet night in the meadow " * 40  # 1,120 letters, 281 tokens of o200k
    found = estimate("/responses", {"input": english}, 9999)
    assert 240 < found.prompt <= 281 < found.most_prompt < 400
    picture = {"messages": [{"content": [{"image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}]}]}
    assert estimate("/chat/completions", picture, 9_999_999).most_prompt == TOKENS_A_FILE
    assert estimate("/audio/transcriptions", {}, 1_000_000).most_prompt == TOKENS_A_FILE
    assert estimate("/models", {}, 0) == (0, 0, 0)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(["max_tokens", "n", "messages", "input", "model"]), JSON))
def test_no_json_is_negative_or_raises(asked: dict[str, object]) -> None:
    found = estimate("/chat/completions", asked, 10)
    assert 0 <= found.prompt <= found.most_prompt and found.most_answer >= 0
