"""A deployment that does not serve yet: its functions are imported beside those that do, and each proves its health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from lampyr.core.printable import printable
from lampyr.gateway.site import Site
from lampyr.node.health import Verdict
from lampyr.node.pool import Pool

MAX_CHARS = 2000  # of what is wrong with one function


class Candidate:
    """`judged(failures)` is called once: with what is wrong, each with "route", "file", "line", "message" and "hint".

    `patience_s` after the start whoever has not proved anything yet is believed: it has served before (rollback).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        site: Site,
        at_once: int,
        patience_s: float | None,
        judged: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        self.site = site
        self._judged: Callable[[list[dict[str, Any]]], None] | None = judged
        self._failures: list[dict[str, Any]] = []
        self._cold = [pool for pool in reversed(site.pools.values()) if pool.function.problem is None]
        self._open = len(self._cold)
        self._timer = loop.call_later(patience_s, self._close) if patience_s is not None else None
        if not self._cold:
            loop.call_soon(self._close)
        for _ in range(at_once):
            self._next()

    def _next(self) -> None:
        if self._cold:
            pool = self._cold.pop()
            pool.prove(partial(self._proved, pool))

    def _proved(self, pool: Pool, verdict: Verdict) -> None:
        self._open -= 1
        if verdict is not None:
            self._failures.append({"route": pool.function.route, **self._told(pool, verdict)})
        if self._open:
            self._next()
        else:
            self._close()

    def _close(self) -> None:
        judged, self._judged = self._judged, None
        if judged is not None:
            judged(self._failures)
        self.forget()

    def forget(self) -> None:
        """Nobody wants to know any more."""
        self._judged = None
        self._cold.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _told(self, pool: Pool, verdict: dict[str, Any]) -> dict[str, Any]:
        """A failure within bounds, without secrets or what moves a terminal: it comes from a process of the user's."""
        masker = self.site.masker
        texts = {name: str(verdict.get(name) or "") for name in ("file", "message", "hint")}
        if masker:
            texts = {name: masker.mask(text.encode()).decode(errors="replace") for name, text in texts.items()}
        texts = {name: "\n".join(map(printable, text[:MAX_CHARS].split("\n"))) for name, text in texts.items()}
        return {**texts, "file": texts["file"] or str(pool.function.file), "line": verdict.get("line")}
