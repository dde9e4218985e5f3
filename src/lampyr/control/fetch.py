"""Packages that are being installed in development, on a thread, while the loop of control goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from lampyr.build.dependencies import Asked
from lampyr.build.progress import Progress
from lampyr.build.supply import Supplier
from lampyr.errors import LampyrError
from lampyr.types import Problem


class Fetch:
    """Installs what is `missing`. `process` is the environment that has the way to an index."""

    def __init__(self, missing: Mapping[str, Asked], state: Path, process: Mapping[str, str]) -> None:
        self.missing = missing
        self._progress = Progress(alone=False)
        self._supplier = Supplier(state, process, self._progress.now_at)
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Readable when it is done."""
        return self._reader

    def _run(self) -> None:
        try:
            with self._progress:
                self._supplier.install(self.missing)
        except LampyrError as error:
            problem = Problem(file="", line=None, message=error.message, hint=error.hint)
            self._supplier.failed.update(dict.fromkeys(self.missing, problem))
        finally:
            os.close(self._writer)

    def end(self) -> dict[str, Problem]:
        """What could not be installed, by key, once it is done."""
        self._thread.join()
        os.close(self._reader)
        return self._supplier.failed

    def stop(self) -> None:
        """It is not wanted any more."""
        self._supplier.stop()
        self.end()
