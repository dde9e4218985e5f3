"""One function as its deployment serves it: who is let in, for how long, to which instances, and into which book."""

from __future__ import annotations

from lampyr.core.masking import Masker
from lampyr.gateway.admission import Admission, Crowd
from lampyr.gateway.deadlines import Deadlines
from lampyr.gateway.exchange import Lines
from lampyr.gateway.log import Log
from lampyr.gateway.metering import Book
from lampyr.node.pool import Pool


class Service:
    """`known_heads` are those of responses, as handlers of this deployment wrote them."""

    __slots__ = (
        "admission",
        "book",
        "crowd",
        "deadlines",
        "known_heads",
        "log",
        "masker",
        "max_duration_s",
        "pool",
        "shows_tracebacks",
    )

    def __init__(
        self,
        pool: Pool,
        admission: Admission,
        book: Book,
        log: Log,
        masker: Masker,
        crowd: Crowd,
        known_heads: dict[bytes, Lines],
        *,
        shows_tracebacks: bool,
    ) -> None:
        self.pool = pool
        self.admission = admission
        self.book = book
        self.log = log
        self.masker = masker
        self.crowd = crowd
        self.known_heads = known_heads
        self.shows_tracebacks = shows_tracebacks
        settings = pool.function.settings
        self.max_duration_s = limit_s = settings.max_duration
        if settings.first_byte_timeout is not None and (limit_s is None or settings.first_byte_timeout < limit_s):
            limit_s = settings.first_byte_timeout
        self.deadlines = Deadlines(pool.loop, limit_s)
