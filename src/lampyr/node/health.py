"""A health fork: whether a function's snapshot can fork an instance that gets ready and leaves when it is told to.

No handler is called. What runs is what runs in every instance: hooks after the fork, and an application's lifespan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lampyr.core import endings

if TYPE_CHECKING:
    from lampyr.node.instance import Instance
    from lampyr.node.pool import Pool

# What is wrong, in the words of a failed import (runtime.load.failure); None: nothing is.
Verdict = dict[str, Any] | None


class Health:
    """One question to one pool; `told` is called once."""

    def __init__(self, pool: Pool, told: Callable[[Verdict], None]) -> None:
        self._pool = pool
        self._told = told
        self._instance: Instance | None = None
        self._ready = False

    def look(self) -> None:
        """The snapshot may have changed."""
        snapshot = self._pool.snapshot
        if self._instance is not None:
            return
        snapshot.wanted()
        if snapshot.state == "ready":
            try:
                self._instance = self._pool.start()
            except OSError as error:
                self._fail(f"the server cannot make its process: {error}", None)
        elif snapshot.state == "failed":
            self._finish(snapshot.failure)

    def takes(self, instance: Instance) -> bool:
        """Whether this new instance is the one that was forked for it: it is told to leave."""
        self._ready = self._ready or instance is self._instance
        return instance is self._instance

    def ended(self, instance: Instance) -> None:
        if instance is not self._instance:
            return
        if self._ready:
            instance.exit.ask(self._left)
        else:
            instance.exit.ask(self._failed)

    def _left(self, status: int | None) -> None:
        if status == 0:
            self._finish(None)
        else:
            self._fail("its health fork got ready and did not leave when it was told to", status)

    def _failed(self, status: int | None) -> None:
        self._fail("its health fork did not get ready", status)

    def _fail(self, what: str, status: int | None) -> None:
        how = f": it {endings.told(status)}" if status is not None else ""
        hint = "the server's log has what it said; hooks after the fork and an application's lifespan run in it"
        self._finish({"file": str(self._pool.function.file), "line": None, "message": f"{what}{how}", "hint": hint})

    def _finish(self, verdict: Verdict) -> None:
        self._pool.health = None
        self._told(verdict)
