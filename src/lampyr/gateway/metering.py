"""The ledger's row of a call: opened before its instance sees a byte, closed before the last byte of its answer leaves.

Closed before, because a client that has its whole answer must find it in the ledger whatever is killed next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lampyr.gateway.budgets import Allowances
from lampyr.ledger import records
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import CLOSE, CLOSE_STRUCT, OPEN, OPEN_STRUCT, OUTCOME_NUMBER, Origin, key_bytes

if TYPE_CHECKING:
    from lampyr.gateway.call import Call

# What a cancelled handler or `after()` used beyond this is added to a row that is closed already.
WORTH_NS: Final = 1000

# A struct is packed field by field, so the kind at the end of a record comes last (see ledger/records.py).
# Final: compiled code then finds them without looking them up.
_pack_open: Final = OPEN_STRUCT.pack_into
_pack_close: Final = CLOSE_STRUCT.pack_into
_OPEN_BYTES: Final[int] = OPEN_STRUCT.size
_CLOSE_BYTES: Final[int] = CLOSE_STRUCT.size
_NUMBER: Final = OUTCOME_NUMBER


class Book:
    """The rows of one function under one deployment. `open` and `close` are on every request's way.

    `./do bench books` says what they cost, with the line of the log. Control takes 6 µs to store a row, later, and on a
    busy machine at most a hundredth of a core.
    """

    __slots__ = ("_budgets", "_journal", "_key", "_origin")

    def __init__(self, journal: Journal, function: str, deployment: str, budgets: Allowances | None) -> None:
        self._budgets = budgets
        self._origin = journal.origin(Origin(function, deployment, ""))
        self._key = key_bytes(self._origin)
        self._journal = journal

    def refused(self, id: str, outcome: str, status: int, sent: int) -> None:
        """A request that was not let in."""
        journal = self._journal
        at = journal.place(_CLOSE_BYTES)
        if at >= 0:
            # fmt: off
            _pack_close(
                journal.map, at, _CLOSE_BYTES, CLOSE, id.encode(), self._key, status, False, _NUMBER[outcome],
                0.0, 0.0, 0.0, 0, 0, 0.0, 0, sent, CLOSE,
            )
            # fmt: on

    def open(self, call: Call) -> None:
        """An instance is about to see it."""
        journal = self._journal
        at = journal.place(_OPEN_BYTES)
        if at >= 0:
            _pack_open(journal.map, at, _OPEN_BYTES, OPEN, call.exchange.id_bytes, self._key, OPEN)

    def close(self, call: Call, now_s: float) -> None:
        """The last byte of its answer is about to leave, or there will be none."""
        exchange, instance, begun_s = call.exchange, call.instance, call.begun_s
        cpu_ns = peak_kib = 0
        gb_s = init_ms = duration_ms = 0.0
        queue_ms = ((begun_s or now_s) - exchange.started) * 1000
        if begun_s:
            duration_ms = (now_s - begun_s) * 1000
        if instance is not None:
            meter = instance.meter
            cpu_ns, gb_s = meter.spent(call.mark, len(instance.running), begun_s, now_s)
            peak_kib = meter.peak_kib(begun_s, now_s)
            if call.cold:
                init_ms = instance.init_ms
                queue_ms = max(queue_ms - init_ms, 0.0)
        if self._budgets is not None:
            self._budgets.use(cpu_ns, gb_s)
        journal = self._journal
        at = journal.place(_CLOSE_BYTES)
        if at >= 0:
            # fmt: off
            _pack_close(
                journal.map, at, _CLOSE_BYTES, CLOSE, exchange.id_bytes, self._key, call.status, call.cold,
                _NUMBER[call.outcome], queue_ms, init_ms, duration_ms, cpu_ns, peak_kib, gb_s,
                call.bytes_in, call.bytes_out, CLOSE,
            )
            # fmt: on

    def streamed(self, call: Call, first_s: float) -> None:
        """Its body came in pieces; the first one left then."""
        row = records.Streamed(call.id, self._origin, (first_s - call.begun_s) * 1000)
        self._journal.write(records.streamed(row))

    def amend(self, call: Call, now_s: float) -> None:
        """It has ended for good: what it used since it was closed."""
        instance = call.instance
        if instance is not None:
            cpu_ns, _ = instance.meter.spent(call.mark, len(instance.running), 0.0, now_s)
            if cpu_ns > WORTH_NS:
                if self._budgets is not None:
                    self._budgets.use(cpu_ns, 0.0)
                self._journal.write(records.amended(records.Amended(call.id, self._origin, cpu_ns)))
