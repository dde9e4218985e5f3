"""The kinds of values a setting can have: each reads a literal, or raises, and says in words what it allows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS = {unit.lower(): unit for unit in ("invocations", "tokens", "USD", "CPU seconds", "GB-seconds")}
_BUDGET_PERIODS = ("hour", "day", "month")
# A name is a token of RFC 9110.
_RATE = re.compile(
    r"(\d{1,9}) ?/ ?(second|minute|hour|day)(?: by (?:(header) |(cookie) )([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}))?"
)
_BUDGET = re.compile(r"(\d[\d_]*(?:\.\d+)?) ([A-Za-z -]+?) ?/ ?(hour|day|month)")
_DURATION = re.compile(r"[0-9]{1,9}[smhd]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REGION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Kind:
    """`allowed` says what is allowed, for people; `read` returns the value as kept, raises TypeError or ValueError.

    `quoted` is False where a wrong value may be a credential that someone put in the place of its name.
    """

    allowed: str
    read: Callable[[object], Any]
    choices: tuple[str, ...] = ()
    quoted: bool = True

    def show(self, value: object) -> str:
        """A wrong value, as it may stand in a message."""
        if not self.quoted:
            return f"(of type {type(value).__name__}, not shown)"
        shown = f'"{value}"' if isinstance(value, str) else repr(value)
        return "= " + (shown if len(shown) <= 60 else shown[:57] + "...")


class Rate(NamedTuple):
    """`requests` in a period of `period_s` seconds, for each address, or each value of a header or cookie `name`."""

    requests: int
    period_s: int
    by: str = "address"
    name: str = ""


class Budget(NamedTuple):
    """`amount` of `unit` ("invocations", "tokens", "USD", "CPU seconds", "GB-seconds") each hour, day or month."""

    amount: float
    unit: str
    period: str

    def written(self) -> str:
        """As people write it."""
        return f"{self.amount:g} {self.unit}/{self.period}"


def parse_rate(value: str) -> Rate | None:
    """Read "60/minute" or "60/minute by header X-Api-Key"; None for "none". Raises ValueError."""
    if value == "none":
        return None
    found = _RATE.fullmatch(value)
    if not found or int(found[1]) < 1:
        raise ValueError(value)
    name = found[5].lower() if found[3] else found[5]
    return Rate(int(found[1]), _PERIODS_S[found[2]], found[3] or found[4] or "address", name or "")


def parse_budget(value: str) -> Budget | None:
    """Read "5 USD/day" or "1000 invocations/month"; None for "none". Raises ValueError."""
    if value == "none":
        return None
    found = _BUDGET.fullmatch(value)
    word = found[2].lower() if found else ""
    unit = _UNITS.get(word) or _UNITS.get(word + "s")
    if not found or not unit or float(found[1]) <= 0:
        raise ValueError(value)
    return Budget(float(found[1]), unit, found[3])


def _number(value: object, low: float, high: float) -> int | float:
    # bool is an int to Python and not to a reader; NaN fails the comparison.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    if not low <= value <= high:
        raise ValueError
    return value


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError
    return tuple(_str(item) for item in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value))


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not pattern.fullmatch(_str(value)):
        raise ValueError
    return _str(value)


def seconds(low: float, high: float, none: bool = False) -> Kind:
    """A duration; with `none` also None, "none" where the language has no None."""

    def read(value: object) -> float | None:
        return None if none and value in (None, "none") else float(_number(value, low, high))

    return Kind(f"a number of seconds, {low:g} to {high:g}" + (', or None ("none" in TOML)' if none else ""), read)


def duration(most_days: int) -> Kind:
    """A duration with its unit, read as seconds; None for "none"."""

    def read(value: object) -> float | None:
        if value in (None, "none"):
            return None
        text = _matching(_DURATION, value)
        return float(_number(int(text[:-1]) * _UNITS_S[text[-1]], 1, most_days * 86400))

    return Kind(f'a duration such as "90s", "15m", "1h" or "7d", 1s to {most_days}d, or "none"', read)


def whole(low: int, high: int, unit: str = "") -> Kind:
    """An int in a range."""

    def read(value: object) -> int:
        if not isinstance(value, int):
            raise TypeError
        return int(_number(value, low, high))

    return Kind(f"a whole number{unit and ' of ' + unit}, {low} to {high}", read)


def usd() -> Kind:
    """An amount of money."""
    return Kind("a number of US dollars, 0 or more", lambda value: float(_number(value, 0, 1e9)))


def choice(*options: str) -> Kind:
    """One of a few words."""

    def read(value: object) -> str:
        if _str(value) not in options:
            raise ValueError
        return _str(value)

    return Kind(" or ".join(f'"{option}"' for option in options), read, options)


def text() -> Kind:
    """Any text but the empty one."""
    return Kind("text in quotes", lambda value: _matching(re.compile(r"[^\x00-\x1f\x7f]+"), value))


def texts() -> Kind:
    """A list of texts."""
    return Kind("a list of texts", lambda value: tuple(text().read(item) for item in _list(value)))


def url_paths() -> Kind:
    """A list of URL paths."""
    pattern = re.compile(r"/[!-~]*")
    return Kind(
        'a list of URL paths, each beginning with "/"', lambda value: tuple(_matching(pattern, i) for i in _list(value))
    )


def variable() -> Kind:
    """The name of an environment variable."""
    return Kind('the name of a secret, such as "OPENAI_API_KEY"', lambda value: _matching(_VARIABLE, value), (), False)


def variables() -> Kind:
    """Names of environment variables, or None for all there are."""

    def read(value: object) -> tuple[str, ...] | None:
        return None if value is None else tuple(_matching(_VARIABLE, item) for item in _list(value))

    return Kind('a list of names, such as ["OPENAI_API_KEY"]; the empty list for none', read, (), False)


def regions() -> Kind:
    """Names of PoPs, or "all"."""

    def read(value: object) -> tuple[str, ...] | None:
        if value is None or value == "all":
            return None
        found = tuple(_matching(_REGION, item) for item in _list(value))
        if not found:
            raise ValueError
        return found

    return Kind('"all", or a list of names of PoPs', read, ("all",))


def rate() -> Kind:
    """A rate limit, kept in one spelling."""

    def read(value: object) -> str:
        if value is None or value == "none":
            return "none"
        word = re.sub(r"\s*/\s*", "/", _str(value).strip())
        parse_rate(word)
        return word

    allowed = (
        '"COUNT/second", "/minute", "/hour" or "/day", such as "60/minute"; with "by header NAME" or "by cookie NAME"'
    )
    return Kind(allowed + ' behind it for each value of that; "none" turns it off', read)


def budget() -> Kind:
    """A budget, kept as written; None is no budget."""

    def read(value: object) -> str | None:
        if value is None or value == "none":
            return None
        parse_budget(_str(value).strip())
        return _str(value).strip()

    units, periods = ", ".join(_UNITS.values()), ", ".join(_BUDGET_PERIODS)
    return Kind(f'"AMOUNT UNIT/PERIOD", such as "5 USD/day"; units: {units}; periods: {periods}; "none" for none', read)


def url() -> Kind:
    """The http or https address of a provider: no user, query or fragment."""

    def read(value: object) -> str:
        parts = urlsplit(_matching(re.compile(r"[!-~]+"), value))
        _ = parts.port  # raises ValueError where it is not a number
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError
        if "?" in _str(value) or "#" in _str(value):
            raise ValueError
        return _str(value).rstrip("/")

    allowed = 'an http or https URL without user, query and fragment, such as "https://api.openai.com/v1"'
    return Kind(allowed, read, quoted=False)


def networks() -> Kind:
    """Addresses or ranges of addresses."""

    def read(value: object) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(item, strict=False)) for item in _list(value))

    return Kind('a list of IP addresses or ranges, such as ["127.0.0.1", "10.0.0.0/8"]', read)


def budgets() -> Kind:
    """One budget or a list of them."""
    one = budget()

    def read(value: object) -> tuple[str, ...]:
        found = [one.read(item) for item in ((value,) if isinstance(value, str) else _list(value))]
        return tuple(item for item in found if item is not None)

    return Kind(one.allowed + "; or a list of these", read)
