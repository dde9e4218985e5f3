"""The making of a process that is to be an instance: its number, its link, two pipes for its log, and the order."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from lampyr.core.flow import Patience
from lampyr.node.instance import Instance
from lampyr.node.link import Link
from lampyr.node.logs import LogPipe, Sink, stdout_and_stderr
from lampyr.runtime.channel import Message
from lampyr.runtime.marks import says_whose

if TYPE_CHECKING:
    from lampyr.node.pool import Pool

_numbers = count(1)


class Births:
    """Of one pool. `talks` says whether its processes have written lines that do not say whose they are."""

    def __init__(self, pool: Pool, tmp: str, user: int, sink: Callable[[str, Instance | None], Sink]) -> None:
        self._pool = pool
        self._tmp = tmp
        self._user = user
        self._sink = sink
        self._patience = Patience()  # with all that they write
        self.talks = False

    def order(self, order: Message, *more: int) -> Instance:
        """Have the snapshot, which is ready, fork one, and hand `more` descriptors to it. Raises OSError."""
        pool, number = self._pool, next(_numbers)
        link = Link(pool.loop, one_at_a_time=pool.concurrency == 1)
        pipes: list[LogPipe] = []
        tmp = os.path.join(self._tmp, f"{number}.{os.getpid()}")  # a dead gateway may have left some
        instance = Instance(pool, number, link, pipes, tmp)
        try:
            pipes += stdout_and_stderr(pool.loop, partial(self._heard, instance), self._user, self._patience)
            fds = (link.theirs(), *(pipe.writer for pipe in pipes), *more)
            forked, exited = partial(pool.forked, instance), partial(pool.exited, instance)
            sent = pool.snapshot.fork({"tmp": tmp, **order}, fds, forked, exited)
        except OSError:
            instance.close()
            raise
        link.handed_over()
        for pipe in pipes:
            pipe.handed_over()
        if not sent:
            pool.loop.call_soon(pool.ended, instance)
        return instance

    def _heard(self, instance: Instance, stream: str) -> Sink:
        sink = self._sink(stream, instance)

        def heard(line: bytes, ended: bool) -> None:
            self.talks = self.talks or not says_whose(line)
            sink(line, ended)

        return heard
