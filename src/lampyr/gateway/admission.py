"""May this request be served now? Decided before an instance is asked for: who sends too much costs no process."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from lampyr.core.admission import Rate, client
from lampyr.gateway import answers
from lampyr.gateway.budgets import Allowance, Allowances
from lampyr.types import Settings
from lampyr.values import parse_rate

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


class Admission:
    """The rules of one function. What is known of its clients goes on under a new deployment with the same rules."""

    def __init__(self, settings: Settings, budgets: Allowances | None, before: Admission | None) -> None:
        self._budgets = budgets
        self._written = settings.rate_limit
        self._free = READING if settings.rate_limit is None else ASKING
        rate = parse_rate(settings.rate_limit or DEFAULT_RATE)
        self._rate: Rate | None = Rate(rate.requests, rate.period_s) if rate is not None else None
        if before is not None and before._written == self._written:
            self._rate = before._rate

    def refusal(self, method: str, ip: str, now_s: float, id: str) -> Refusal | None:
        """Count a request, or say why it is not served."""
        if self._rate is not None and method not in self._free:
            wait_s = self._rate.wait_s(client(ip), now_s)
            if wait_s:
                return Refusal("rate_limited", _rate_limited(self._rate, wait_s, id))
        if self._budgets is not None and (spent := self._budgets.spent()):
            return Refusal("over_budget", _over_budget(*spent, id))
        return None


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
