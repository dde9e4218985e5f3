"""May this request be served now? Decided before an instance is asked for: who sends too much costs no process."""

from __future__ import annotations

from hashlib import blake2b
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from lampyr.core.admission import Rate, client
from lampyr.gateway import answers
from lampyr.gateway.budgets import Allowance, Allowances
from lampyr.types import Settings
from lampyr.values import parse_rate

if TYPE_CHECKING:
    from lampyr.gateway.exchange import Exchange

# What holds where a function says nothing (SPEC 2): a page may be read as often as anybody likes.
DEFAULT_RATE = "60/minute"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
# A limit that a function sets is for everything its handlers do; a browser's preflight comes with every request.
ASKING = frozenset({"OPTIONS"})

_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


class Refusal(NamedTuple):
    """Why a request is not served: the ledger's word for it, and the answer."""

    outcome: str
    answer: answers.Answer


class Crowd:
    """How many invocations of all functions are under way, those that wait too, and how many there may be."""

    __slots__ = ("inside", "most")

    def __init__(self, most: int) -> None:
        self.inside = 0
        self.most = most

    def refusal(self, id: str) -> Refusal | None:
        """Why there is no room, where there is none."""
        if self.inside < self.most:
            return None
        message = f"The server runs {self.most} invocations at once, and no more."
        return Refusal("throttled", answers.error("FUNCTION_THROTTLED", message, id, (b"retry-after", b"1")))


class Admission:
    """The rules of one function. What is known of its clients goes on under a new deployment with the same rules."""

    def __init__(self, settings: Settings, budgets: Allowances | None, before: Admission | None) -> None:
        self._budgets = budgets
        self._written = settings.rate_limit
        self._free = READING if settings.rate_limit is None else ASKING
        rate = parse_rate(settings.rate_limit or DEFAULT_RATE)
        self._rate: Rate | None = Rate(rate.requests, rate.period_s) if rate is not None else None
        self._by = rate.by if rate is not None else "address"
        self._name = rate.name.encode() if rate is not None else b""
        if before is not None and before._written == self._written:
            self._rate = before._rate

    def refusal(self, exchange: Exchange, ip: str) -> Refusal | None:
        """Count a request from `ip`, or say why it is not served."""
        if self._rate is not None and exchange.method not in self._free:
            who = client(ip) if self._by == "address" else self._named(exchange) or client(ip)
            wait_s = self._rate.wait_s(who, exchange.started)
            if wait_s:
                return Refusal("rate_limited", _rate_limited(self._rate, wait_s, exchange.id))
        if self._budgets is not None and (spent := self._budgets.spent()):
            return Refusal("over_budget", _over_budget(*spent, exchange.id))
        return None

    def _named(self, exchange: Exchange) -> bytes | None:
        """Who it is by the header or cookie of the settings, as a hash: of a credential, and of any length."""
        if self._by == "header":
            values = [value for name, value in exchange.headers if name == self._name]
        else:
            values = _cookies(exchange, self._name)
        value = b"\0".join(values)
        return blake2b(value, digest_size=16).digest() if value else None


def _cookies(exchange: Exchange, wanted: bytes) -> list[bytes]:
    found = []
    for header, line in exchange.headers:
        if header == b"cookie":
            pairs = (pair.partition(b"=") for pair in line.split(b";"))
            found += [value.strip() for name, _, value in pairs if name.strip() == wanted]
    return found


def _rate_limited(rate: Rate, wait_s: float, id: str) -> answers.Answer:
    """429 with the fields of draft-ietf-httpapi-ratelimit-headers-10."""
    seconds = max(ceil(wait_s), 1)
    count = f"{rate.requests} request{'s' if rate.requests > 1 else ''}"
    message = f"This function takes {count} per {_UNITS[rate.period_s]} from one client."
    headers = [
        (b"retry-after", b"%d" % seconds),
        (b"ratelimit-policy", b'"client";q=%d;w=%d' % (rate.requests, rate.period_s)),
        (b"ratelimit", b'"client";r=0;t=%d' % seconds),
    ]
    return answers.error("RATE_LIMITED", message, id, *headers)


def _over_budget(budget: Allowance, wait_s: float, id: str) -> answers.Answer:
    whose = "this function" if budget.route else "all functions together"
    message = f"The budget of {whose}, {budget.budget.written()}, is spent."
    return answers.error("BUDGET_EXCEEDED", message, id, (b"retry-after", b"%d" % ceil(wait_s)))
