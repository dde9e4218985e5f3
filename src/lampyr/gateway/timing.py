"""Where the time of a request went, as its answer says it: server-timing (SPEC 3)."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lampyr.gateway.call import Call

# Where no function was involved.
NONE = (b"server-timing", b"queue;dur=0, init;dur=0;desc=warm")


def line(call: Call, now_s: float) -> bytes:
    """As a line of the head of a whole response, so with how long the handler took."""
    began_s, started_s = call.begun_s, call.exchange.started
    exec_ms = (now_s - began_s) * 1000
    if not call.cold and began_s >= started_s:
        queue_ms = (began_s - started_s) * 1000
        return b"\r\nserver-timing: queue;dur=%.2f, init;dur=0.00;desc=warm, exec;dur=%.2f" % (queue_ms, exec_ms)
    return b"\r\nserver-timing: %b, exec;dur=%.2f" % (_until_begun(call, now_s), exec_ms)


def header(call: Call) -> tuple[bytes, bytes]:
    """As a header of a response that begins, or of an error: nobody knows how long the handler will take."""
    return b"server-timing", _until_begun(call, monotonic())


def _until_begun(call: Call, now_s: float) -> bytes:
    init_ms = call.instance.init_ms if call.cold and call.instance is not None else 0.0
    queue_ms = max(((call.begun_s or now_s) - call.exchange.started) * 1000 - init_ms, 0.0)
    # Who never came to an instance has waited for an import or a start, unless there are some that serve.
    at_work = call.begun_s or any(one.served or one.running for one in call.pool.instances.values())
    state = b"warm" if at_work and not call.cold else b"cold"
    return b"queue;dur=%.2f, init;dur=%.2f;desc=%s" % (queue_ms, init_ms, state)
