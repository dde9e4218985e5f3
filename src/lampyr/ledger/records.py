"""What stands in the journal: a record of a few bytes for each thing that happened.

A record begins with its length and its kind and ends with its kind once more, where 0 was before. One of the two is
written last: so whoever is killed in the middle of it has written nothing. The kind at its end also tells a record from
one of which the machine's end left the first page only.
"""

from __future__ import annotations

import hashlib
import json
from struct import Struct
from typing import Any, Final, NamedTuple

# The words of SPEC 6, and `interrupted` for what the end of the server cut off. Their order is their number on disk.
OUTCOMES = (
    *("ok", "error", "timeout", "crashed", "client_closed", "throttled", "rate_limited", "over_budget"),
    "interrupted",
)
OUTCOME_NUMBER = {word: number for number, word in enumerate(OUTCOMES)}
# Never let in, so they are no invocations and cost nothing.
REFUSED = frozenset({"rate_limited", "over_budget"})
ERRORS = frozenset({"error", "timeout", "crashed", "throttled", "interrupted"})

START: Final = 1
ORIGIN: Final = 2
OPEN: Final = 3
CLOSE: Final = 4
AMEND: Final = 5
SPEND: Final = 6
STREAM: Final = 7
ASK: Final = 8
SCALE: Final = 9
TRACE: Final = 16
KIND_AT: Final = 2  # behind the length

HEADER = Struct("<HB")
_HEADER_BYTES: Final[int] = HEADER.size
# These two with their origin as bytes, as whoever writes many of them has it at hand.
OPEN_STRUCT = Struct("<HB24s8sB")
CLOSE_STRUCT = Struct("<HB24s8sHBBdddQIdQQB")
# The same as they are read: what stands between their kinds.
_OPENED, _CLOSED = Struct("<24sq"), Struct("<24sqH?BdddQIdQQ")
AMEND_STRUCT = Struct("<HB24sqQB")
TRACE_STRUCT = Struct("<HB24s16s8sBB")
STREAM_STRUCT = Struct("<HB24sqdB")
MAX_BYTES = 0xFFFF
_tuple: Final[Any] = tuple.__new__


class Origin(NamedTuple):
    """What many rows share. `key` stands for it in each of them."""

    function: str
    deployment: str
    region: str

    @property
    def key(self) -> int:
        """Eight bytes of its hash: the same in every process, so nobody has to hand out numbers."""
        text = "\0".join(self).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


class Started(NamedTuple):
    """A gateway has begun: what was open before it has ended without saying so."""


class Known(NamedTuple):
    """An origin that the following records may name."""

    key: int
    origin: Origin


class Opened(NamedTuple):
    """An invocation is about to be handed to an instance."""

    id: str
    origin: int


class Closed(NamedTuple):
    """An invocation is complete but for the last bytes of its answer."""

    id: str
    origin: int
    status: int
    cold: bool
    outcome: str
    queue_ms: float
    init_ms: float
    duration_ms: float
    cpu_ns: int
    memory_kib: int
    gb_s: float
    bytes_in: int
    bytes_out: int


class Amended(NamedTuple):
    """CPU time that an invocation used after it was closed: `after()`, or a handler that was cancelled."""

    id: str
    origin: int
    cpu_ns: int


class Spent(NamedTuple):
    """A call of a function to a provider is over: tokens, and dollars for them; `guessed` where nobody said how many.

    `id` is of the call, `invocation` of the row it belongs to, "" where that is not known.
    """

    id: str
    invocation: str
    function: str
    provider: str
    model: str
    tokens_in: int
    tokens_out: int
    cost_usd: float
    guessed: bool
    took_ms: float = 0.0


class Asked(NamedTuple):
    """A provider is about to be asked. `call` is what will have been spent where nobody lives to say how it ended."""

    call: Spent


class Traced(NamedTuple):
    """An invocation in a trace that its client has begun; `parent` is the client's span (core/traceparent.py)."""

    id: str
    trace: str
    parent: str
    flags: int


class Streamed(NamedTuple):
    """When the first byte of a body left that came in pieces, counted from when its instance got the request."""

    id: str
    origin: int
    first_byte_ms: float


class Scaled(NamedTuple):
    """How many instances a function has at a time (ms since 1970), or had until then, whichever is more."""

    at_ms: int
    function: str
    most: int


Record = Started | Known | Opened | Closed | Amended | Spent | Asked | Streamed | Scaled | Traced


def started() -> bytes:
    """The first record of a gateway."""
    return _framed(START, b"")


def known(origin: Origin) -> bytes:
    """An origin, before its first row."""
    return _framed(ORIGIN, key_bytes(origin.key) + json.dumps(origin).encode())


def key_bytes(key: int) -> bytes:
    """The key of an origin as it stands in records."""
    return key.to_bytes(8, "little", signed=True)


def opened(row: Opened) -> bytes:
    """An invocation that begins."""
    return OPEN_STRUCT.pack(OPEN_STRUCT.size, OPEN, row.id.encode(), key_bytes(row.origin), OPEN)


def closed(row: Closed) -> bytes:
    """A complete row."""
    id, origin, status, cold, outcome, *figures = row
    number = OUTCOME_NUMBER[outcome]
    ids = id.encode(), key_bytes(origin)
    return CLOSE_STRUCT.pack(CLOSE_STRUCT.size, CLOSE, *ids, status, cold, number, *figures, CLOSE)


def amended(row: Amended) -> bytes:
    """More CPU time for a row."""
    return AMEND_STRUCT.pack(AMEND_STRUCT.size, AMEND, row.id.encode(), row.origin, row.cpu_ns, AMEND)


def spent(row: Spent) -> bytes:
    """A call to a provider."""
    return _framed(SPEND, json.dumps(row).encode())


def asked(row: Asked) -> bytes:
    """A call to a provider that begins."""
    return _framed(ASK, json.dumps(row.call).encode())


def traced(row: Traced) -> bytes:
    """The trace of an invocation, before it is opened or refused."""
    id, trace, parent, flags = row
    ids = bytes.fromhex(trace), bytes.fromhex(parent)
    return TRACE_STRUCT.pack(TRACE_STRUCT.size, TRACE, id.encode(), *ids, flags, TRACE)


def streamed(row: Streamed) -> bytes:
    """The first byte of a row that is closed."""
    return STREAM_STRUCT.pack(STREAM_STRUCT.size, STREAM, row.id.encode(), row.origin, row.first_byte_ms, STREAM)


def scaled(change: Scaled) -> bytes:
    """How many instances there are."""
    return _framed(SCALE, json.dumps(change).encode())


def _framed(kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body) + 1, kind) + body + bytes([kind])


def read(data: bytes) -> tuple[list[Record], int]:
    """The records at the beginning of `data`, and where they end: before what is not (yet) a whole record."""
    found: list[Record] = []
    at, size, add = 0, len(data), found.append
    while at + _HEADER_BYTES <= size:
        kind, end = data[at + KIND_AT], at + (data[at] | data[at + 1] << 8)
        if kind == 0 or end <= at + _HEADER_BYTES or end > size or data[end - 1] != kind:
            break
        # Most of the journal is these two: made without the constructors of their classes, which take half the time.
        if kind == CLOSE:
            id, origin, status, cold, outcome, *figures = _CLOSED.unpack_from(data, at + _HEADER_BYTES)
            add(_tuple(Closed, (id.decode("latin-1"), origin, status, cold, OUTCOMES[outcome], *figures)))
        elif kind == OPEN:
            id, origin = _OPENED.unpack_from(data, at + _HEADER_BYTES)
            add(_tuple(Opened, (id.decode("latin-1"), origin)))
        else:
            add(_decoded(kind, data, at, end))
        at = end
    return found, at


def _decoded(kind: int, data: bytes, at: int, end: int) -> Record:
    if kind == AMEND:
        _, _, id, origin, cpu_ns, _ = AMEND_STRUCT.unpack_from(data, at)
        return Amended(id.decode("latin-1"), origin, cpu_ns)
    if kind == STREAM:
        _, _, id, origin, first_byte_ms, _ = STREAM_STRUCT.unpack_from(data, at)
        return Streamed(id.decode("latin-1"), origin, first_byte_ms)
    if kind == SPEND:
        return Spent(*json.loads(data[at + HEADER.size : end - 1]))
    if kind == ASK:
        return Asked(Spent(*json.loads(data[at + HEADER.size : end - 1])))
    if kind == SCALE:
        return Scaled(*json.loads(data[at + HEADER.size : end - 1]))
    if kind == TRACE:
        _, _, id, trace, parent, flags, _ = TRACE_STRUCT.unpack_from(data, at)
        return Traced(id.decode("latin-1"), trace.hex(), parent.hex(), flags)
    if kind == ORIGIN:
        body = data[at + HEADER.size : end - 1]
        return Known(int.from_bytes(body[:8], "little", signed=True), Origin(*json.loads(body[8:])))
    return Started()
