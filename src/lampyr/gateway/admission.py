"""May this request be served now? Decided before an instance is asked for: who sends too much costs no process."""

from __future__ import annotations

from hashlib import blake2b
from math import ceil
from typing import TYPE_CHECKING

from lampyr.core.admission import Rate, client
from lampyr.gateway import answers, timing
from lampyr.gateway.budgets import Allowance, Allowances
from lampyr.gateway.exchange import Lines, joined
from lampyr.types import Settings
from lampyr.values import parse_rate

if TYPE_CHECKING:
    from lampyr.gateway.exchange import Exchange

# What holds where a function says nothing (SPEC 2): a page may be read as often as anybody likes.
DEFAULT_RATE = "60/minute"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
# A limit that a function sets is for everything its handlers do; a browser's preflight comes with every request.
ASKING = frozenset({"OPTIONS"})

# Stands for an id that is not known yet.
_ID = "{id}"
RETRY = (b"retry-after", b"%d")

_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


class Refusal:
    """Why requests are not served, with `outcome`, the ledger's word for it. The answer is made once, for a flood of
    them: what is still missing is the id, and the seconds until the client may try again.
    """

    __slots__ = ("_after", "_before", "_head", "_lines", "_seconds", "outcome", "status")

    def __init__(self, outcome: str, code: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        """In the values of `headers`, %d are the seconds."""
        self.outcome = outcome
        self.status, all_headers, body = answers.error(code, message, _ID, *headers, timing.NONE)
        self._head = joined(self.status, all_headers)
        self._before, _, self._after = body.rpartition(_ID.encode())
        self._seconds = 0  # those in `_lines`: mostly it is the same client that comes again and again
        self._lines = Lines(self.status, self._head, b"", None)

    def answer(self, exchange: Exchange, wait_s: float) -> tuple[Lines, bytes]:
        """Status line and headers, and the body, for one request."""
        seconds = ceil(wait_s) or 1
        if seconds != self._seconds:
            self._seconds = seconds
            self._lines = Lines(self.status, self._head.replace(b"%d", b"%d" % seconds), b"", None)
        return self._lines, self._before + exchange.id.encode() + self._after


# Why not, and for how many seconds yet.
Refused = tuple[Refusal, float]


class Crowd:
    """How many invocations of all functions are under way, those that wait too, and how many there may be."""

    __slots__ = ("_full", "inside", "most")

    def __init__(self) -> None:
        self.inside = 0
        self.allow(0)

    def allow(self, most: int) -> None:
        """So many at once from now on."""
        self.most = most
        message = f"The server runs {most} invocations at once, and no more."
        self._full = Refusal("throttled", "FUNCTION_THROTTLED", message, RETRY)

    def refusal(self) -> Refused | None:
        """Why there is no room, where there is none."""
        return None if self.inside < self.most else (self._full, 1.0)


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
        self._over = {one: _over_budget(one) for one in budgets.each} if budgets is not None else {}
        self._limited = _rate_limited(self._rate) if self._rate is not None else None
        if before is not None and before._written == self._written:
            self._rate = before._rate

    def refusal(self, exchange: Exchange, ip: str) -> Refused | None:
        """Count a request from `ip`, or say why it is not served."""
        if self._rate is not None and exchange.method not in self._free:
            who = client(ip) if self._by == "address" else self._named(exchange) or client(ip)
            wait_s = self._rate.wait_s(who, exchange.started)
            if wait_s and self._limited is not None:
                return self._limited, wait_s
        if self._budgets is not None and (spent := self._budgets.spent()) is not None:
            allowance, wait_s = spent
            return self._over[allowance], wait_s
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


def _rate_limited(rate: Rate) -> Refusal:
    """429 with the fields of draft-ietf-httpapi-ratelimit-headers-10."""
    count = f"{rate.requests} request{'s' if rate.requests > 1 else ''}"
    message = f"This function takes {count} per {_UNITS[rate.period_s]} from one client."
    policy = (b"ratelimit-policy", b'"client";q=%d;w=%d' % (rate.requests, rate.period_s))
    return Refusal("rate_limited", "RATE_LIMITED", message, RETRY, policy, (b"ratelimit", b'"client";r=0;t=%d'))


def _over_budget(budget: Allowance) -> Refusal:
    whose = "this function" if budget.route else "all functions together"
    message = f"The budget of {whose}, {budget.budget.written()}, is spent."
    return Refusal("over_budget", "BUDGET_EXCEEDED", message, RETRY)
