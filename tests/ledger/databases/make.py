"""Makes version-N.db of the version that the code has now: run it before a step is added to ledger/schema.py."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from lampyr.ledger import records, schema, store
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import Closed, Opened, Origin, Spent

HOUR_MS = 3_600_000
OUTCOMES = ("ok", "ok", "error", "rate_limited", "timeout")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder)
        with closing(store.Store(folder)) as keeper:
            keeper.absorb(1000)
            keeper._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            keeper._db.execute("PRAGMA journal_mode = DELETE")
        shutil.copy(folder / store.DATABASE, Path(__file__).parent / f"version-{schema.VERSION}.db")


def _write(folder: Path) -> None:
    journal, calls = (Journal(folder / one, print, 4096) for one in ("journal", "calls"))
    keys = [journal.origin(Origin(route, "d1", "")) for route in ("/a", "/b")]
    for number in range(40):
        ms = (500_000 + number) * HOUR_MS
        id, key = f"{ms:011x}{number:013x}", keys[number % 2]
        journal.write(records.opened(Opened(id, key)))
        if number % 5 == 0:
            call = Spent(f"{ms:011x}{1000 + number:013x}", id, "/a", "openai", "small", 100, 10, 0.25, False)
            calls.write(records.spent(call))
        if number < 39:  # the last one is open
            outcome = OUTCOMES[number % 5]
            figures = (1.5, 0.5, 10.0, 4_000_000, 2048, 0.005, 3, 7)
            journal.write(records.closed(Closed(id, key, 200, number == 0, outcome, *figures)))


if __name__ == "__main__":
    main()
