"""What calls cost."""

from __future__ import annotations

from typing import Any

import pytest

from lampyr.broker.desk import Provider
from lampyr.broker.prices import Price, Prices, published
from lampyr.broker.usage import Tokens

PLAIN: dict[str, Any] = {
    "base_url": "x",
    "secret": None,
    "key": None,
    "paths": None,
    "models": None,
    "timeout": 9.0,
    "retries": 0,
}


def provider(kind: str) -> Provider:
    return Provider(name="p", kind=kind, **PLAIN)


def test_a_million_tokens_each_way() -> None:
    price = Price(input=2.0, cached_input=0.5, output=8.0)
    assert price.usd(Tokens(1_000_000, 1_000_000)) == 10.0
    assert price.usd(Tokens(1_000_000, 0, cached=1_000_000)) == 0.5
    assert price.usd(Tokens(1_000_000, 0, written_to_cache=1_000_000)) == 2.5
    assert Price(input=2.0).usd(Tokens(1_000_000, 0, cached=1_000_000)) == 2.0


def test_a_long_prompt_may_cost_more() -> None:
    price = Price(input=1.0, output=1.0, long_from=200_000, long_input=2.0, long_output=1.5)
    assert price.usd(Tokens(200_000, 1_000_000)) == pytest.approx(1.2)
    assert price.usd(Tokens(200_001, 1_000_000)) == pytest.approx(1.9, rel=1e-4)


@pytest.mark.parametrize("model", ["gpt-5-mini", "gpt-5-mini-2025-08-07", "gpt-5-mini-latest"])
def test_dated_names_have_the_price_of_their_model(model: str) -> None:
    assert Prices({}).of(provider("openai"), model) == published()["openai", "gpt-5-mini"]


def test_whose_price_it_is() -> None:
    prices = Prices({"gpt-5": {"input": 7.0, "cached_input": None, "output": 8.0}})
    assert prices.of(provider("openai"), "gpt-5") == Price(input=7.0, output=8.0)
    assert prices.of(provider("openai-compatible"), "gpt-5") == Price(input=7.0, output=8.0)
    assert prices.of(provider("openai-compatible"), "gpt-5-mini") is None, "others sell it for other prices"
    assert prices.of(provider("anthropic"), "claude-haiku-4-5-20251001") == published()["anthropic", "claude-haiku-4-5"]
    assert prices.of(provider("openai"), "nobody's") is None
    for kind in ("local", "echo"):
        assert prices.of(provider(kind), "nobody's") == Price()


def test_the_table_is_sane() -> None:
    for key, price in published().items():
        assert 0 < price.input < 500 and 0 <= price.output < 1000, key
        assert price.cached_input is None or price.cached_input <= price.input, key
