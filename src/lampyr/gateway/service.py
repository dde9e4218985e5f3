"""One function as its deployment serves it: who is let in, for how long, to which instances, and into which book."""

from __future__ import annotations

from lampyr.gateway.admission import Admission, Crowd
from lampyr.gateway.deadlines import Deadlines
from lampyr.gateway.log import Log
from lampyr.gateway.metering import Book
from lampyr.gateway.reply import Replies
from lampyr.node.pool import Pool


class Service:
    __slots__ = (
        "admission",
        "book",
        "crowd",
        "deadlines",
        "log",
        "max_duration_s",
        "pool",
        "replies",
        "route",
        "shows_tracebacks",
    )

    def __init__(
        self,
        pool: Pool,
        admission: Admission,
        book: Book,
        log: Log,
        replies: Replies,
        crowd: Crowd,
        *,
        shows_tracebacks: bool,
    ) -> None:
        self.pool = pool
        self.admission = admission
        self.book = book
        self.log = log
        self.replies = replies
        self.crowd = crowd
        self.shows_tracebacks = shows_tracebacks
        self.route = pool.function.route
        settings = pool.function.settings
        self.max_duration_s = limit_s = settings.max_duration
        if settings.first_byte_timeout is not None and (limit_s is None or settings.first_byte_timeout < limit_s):
            limit_s = settings.first_byte_timeout
        self.deadlines = Deadlines(pool.loop, limit_s)
