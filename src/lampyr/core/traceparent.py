"""W3C Trace Context: which trace a request belongs to, and the ids of what we add to it (no I/O).

The ids of an invocation's own spans follow from its id, so whoever knows that can name them: the gateway, which tells
the handler, and control, which sends them off.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

HEADER, STATE = "traceparent", "tracestate"
SAMPLED = 1
# Version, trace, parent, flags; a version to come may have more (https://www.w3.org/TR/trace-context/#traceparent-header).
_SHAPE = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_LIMIT = 1 << 64


class Context(NamedTuple):
    """A trace, the span in it that something belongs to, and whether anybody keeps it (SAMPLED in `flags`)."""

    trace: str
    span: str
    flags: int

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace}-{self.span}-{self.flags:02x}"


def parse(text: str) -> Context | None:
    """What a header says; None for what is none: then there is no trace, and `tracestate` means nothing."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(span, 16):
        return None
    return Context(trace, span, int(flags, 16) & SAMPLED if version != "00" else int(flags, 16))


class Own(NamedTuple):
    """The ids that follow from an invocation's: a trace, where it has brought none, and its spans."""

    trace: str
    invocation: str
    handler: str
    queue: str
    init: str

    @classmethod
    def of(cls, id: str) -> Own:
        """As good as random, as traces have to be for those who keep a part of them."""
        text = blake2b(id.encode(), digest_size=48).hexdigest()
        return cls(text[:32], text[32:48], text[48:64], text[64:80], text[80:96])


class Sampling(NamedTuple):
    """Which traces are kept: those that `ratio` picks by their id or, `by_parent`, those that the caller keeps."""

    by_parent: bool = True
    ratio: float = 1.0

    def keeps(self, trace: str, parent: Context | None) -> bool:
        """As the SDKs decide it (https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers)."""
        if self.by_parent and parent is not None:
            return parent.sampled
        return int(trace[16:], 16) < round(self.ratio * _LIMIT)


def sampling(name: str, argument: str) -> Sampling | None:
    """What OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG mean; None for what they cannot."""
    words = {"always_on": 1.0, "always_off": 0.0, "traceidratio": _ratio(argument)}
    word = name.removeprefix("parentbased_") or "always_on"
    ratio = words.get(word)
    return None if ratio is None else Sampling(name.startswith("parentbased_") or not name, ratio)


def _ratio(text: str) -> float | None:
    try:
        ratio = float(text or 1.0)
    except ValueError:
        return None
    return ratio if 0.0 <= ratio <= 1.0 else None
