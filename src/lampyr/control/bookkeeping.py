"""Keeps the ledger's database behind its journal: on a thread beside control's own work, never in a request's way."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from pathlib import Path

from lampyr.control.otel import Exporter
from lampyr.errors import LampyrError
from lampyr.ledger.store import Store

BATCH_ROWS = 4000
# How long after a row its database may follow; `lampyr usage` reads the journal as well and sees it at once.
EVERY_S = 0.5
# Whoever had to wait for a core for such a part of his time is on a busy machine. There this takes one part in so many
# of one core, because requests go first...
WAITED = 0.2
SHARE = 100
MOST_PAUSE_S = 4.0
# ...until so many segments wait: then the disk matters more.
HURRY_SEGMENTS = 64
FORGET_EVERY_S = 3600.0
RETRY_S = 10.0


class Bookkeeper(threading.Thread):
    """Moves rows from the journal in `folder` to the database until the process ends, and removes old ones."""

    def __init__(self, folder: Path, keep_days: float, exporter: Exporter | None = None) -> None:
        super().__init__(name="ledger", daemon=True)
        self._folder = folder
        self._keep_days = keep_days
        self._exporter = exporter
        self._last = threading.Event()
        self._forgotten_s = 0.0
        # Rows grow old by a clock that nobody sets: one that jumps a year ahead must not take the ledger with it.
        self._started_s = time.time() - time.monotonic()

    def finish(self) -> None:
        """No more rows will come: take in those there are, and have their spans sent. Returns when that is done."""
        self._last.set()
        self.join()
        if self._exporter is not None:
            self._exporter.finish()

    def run(self) -> None:
        complained, told = False, self._exporter.offer if self._exporter is not None else None
        while not self._last.is_set():
            try:
                self._keep(Store(self._folder, told))
            except (sqlite3.Error, OSError, LampyrError) as error:
                if not complained:
                    print(f"lampyr: error: the ledger in {self._folder} cannot be kept: {error}", file=sys.stderr)
                complained = True
                self._last.wait(RETRY_S)

    def _keep(self, store: Store) -> None:
        try:
            while True:
                last = self._last.is_set()
                began_s, used_s = time.monotonic(), time.thread_time()
                count = store.absorb(BATCH_ROWS)
                if last:
                    if not count:
                        return
                    continue
                took_s, used_s = time.monotonic() - began_s, time.thread_time() - used_s
                if began_s - self._forgotten_s > FORGET_EVERY_S:
                    self._forget(store, began_s)
                if count < BATCH_ROWS:
                    self._last.wait(EVERY_S)
                elif took_s - used_s > took_s * WAITED and store.backlog() < HURRY_SEGMENTS:
                    self._last.wait(min(used_s * SHARE, MOST_PAUSE_S))
        finally:
            store.close()

    def _forget(self, store: Store, now_s: float) -> None:
        """Some of what is too old, again at the next turn until nothing is."""
        if not store.forget(self._started_s + now_s, self._keep_days):
            self._forgotten_s = now_s
