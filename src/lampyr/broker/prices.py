"""What a call costs: published prices by model, and those of the project, which win. Pure but for its own table."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from lampyr.broker.desk import Provider
from lampyr.broker.usage import Tokens

FREE = ("local", "echo")
# Anthropic's price of a token that its cache writes, and what of its cache is read where the project says no price.
WRITTEN = 1.25
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)\Z")
MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens; behind `long_from` tokens of prompt all of it costs so many times as much."""

    input: float = 0.0
    cached_input: float | None = None
    output: float = 0.0
    long_from: float = float("inf")
    long_input: float = 1.0
    long_output: float = 1.0

    def usd(self, tokens: Tokens) -> float:
        """What so many tokens cost."""
        cached = self.input if self.cached_input is None else self.cached_input
        plain = tokens.read - tokens.cached - tokens.written_to_cache
        read = plain * self.input + tokens.cached * cached + tokens.written_to_cache * self.input * WRITTEN
        long = tokens.read > self.long_from
        read_usd = read * (self.long_input if long else 1.0)
        return (read_usd + tokens.written * self.output * (self.long_output if long else 1.0)) / MILLION


class Prices:
    """`own` are those of lampyr.toml by model."""

    def __init__(self, own: Mapping[str, Mapping[str, Any]]) -> None:
        self._own = {model: Price(**price) for model, price in own.items()}

    def of(self, provider: Provider, model: str) -> Price | None:
        """The price of a model, None where nobody knows it.

        The published prices are those of OpenAI and Anthropic; others sell models under the same names.
        """
        plain = _DATED.sub("", model)
        if provider.kind in FREE:
            return Price()
        return (
            self._own.get(model)
            or self._own.get(plain)
            or published().get((provider.kind, model))
            or published().get((provider.kind, plain))
        )


@cache
def published() -> dict[tuple[str, str], Price]:
    """The table that comes with Lampyr, by kind of provider and model."""
    table = tomllib.loads((files("lampyr.broker") / "prices.toml").read_text())
    return {(kind, model): Price(**price) for kind, models in table.items() for model, price in models.items()}
