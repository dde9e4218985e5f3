"""Who may be served now: a rate for each client, kept as one number each (GCRA; no I/O, time is a parameter)."""

from __future__ import annotations

from socket import AF_INET6, inet_pton

# Clients that one function remembers at a time; each costs 150 bytes or so.
MAX_CLIENTS = 10_000
_MAPPED = bytes(10) + b"\xff\xff"


def client(ip: str) -> str | bytes:
    """Who counts as one client: an IPv4 address, or a /64 of IPv6, of which one subscriber has all 2^64 addresses."""
    if ":" not in ip:
        return ip
    try:
        packed = inet_pton(AF_INET6, ip.partition("%")[0])
    except OSError:
        return ip
    return packed if packed.startswith(_MAPPED) else packed[:8]


class Rate:
    """`requests` for each client in a period of `period_s`; all of them may come at once, and one comes back at a time.

    That is the generic cell rate algorithm (ITU-T I.371): a client's number says when everything it used will have
    come back. Counted in microseconds times `requests`, every step is a whole number and nothing is ever rounded.
    """

    __slots__ = ("_back", "_full", "period_s", "requests")

    def __init__(self, requests: int, period_s: int) -> None:
        self.requests = requests
        self.period_s = period_s
        self._full = period_s * 1_000_000 * requests
        self._back: dict[str | bytes, int] = {}

    def wait_s(self, who: str | bytes, now_s: float) -> float:
        """Count a request of `who` and return 0, or return in how many seconds it may try again."""
        now = int(now_s * 1e6) * self.requests
        back = self._back.get(who, 0)
        if back < now:
            back = now
        back += self.period_s * 1_000_000
        over = back - now - self._full
        if over > 0:
            return over / (self.requests * 1e6)
        self._back[who] = back
        if len(self._back) > MAX_CLIENTS:
            self._forget(now)
        return 0.0

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._back)

    def _forget(self, now: int) -> None:
        """Let go of clients that used nothing lately; where all did, of the eighth that used least.

        So a flood of new addresses costs the busiest clients nothing of what is known of them.
        """
        used = {who: back for who, back in self._back.items() if back > now}
        spare = len(used) - MAX_CLIENTS * 7 // 8
        for who in sorted(used, key=used.__getitem__)[: max(spare, 0)]:
            del used[who]
        self._back = used
