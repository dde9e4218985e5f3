"""The two that can answer, and which of them does: the local model once it is loaded, or the echo."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from lampyr.model import echo, echoes
from lampyr.model.choice import Status
from lampyr.model.local import Local
from lampyr.model.presence import Presence
from lampyr.model.wire import Reply, WireError, checked, read


class Backend(Protocol):
    """Something that answers chat completion requests. `id` is its name on the wire."""

    id: str

    def chat(self, request: dict[str, Any], presence: Presence) -> Reply: ...


class Backends:
    """Chooses who answers. `look` is asked anew until a model is loaded, so a model pulled meanwhile is used at once.

    Every model name reaches the local model ("local" is the one to write), so that a route written for a provider runs
    unchanged; "echo" reaches the echo. Answers name the model that made them.
    """

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._local: Local | None = None
        self._failure = ""

    def choose(self, name: object) -> Backend:
        """Who answers a request for the model `name`; loads the local model on the first call (0.7 s)."""
        if name == echo.ID:
            return echo.Echo()
        with self._lock:
            if self._local is None and (status := self.status()).path is not None:
                self._load(status)
            return self._local or echo.Echo()

    def answer(self, address: str, body: bytes, presence: Presence) -> Reply:
        """The answer at an address of echoes.ADDRESSES, or at that of chat completions. Raises WireError."""
        if (format := echoes.ADDRESSES.get(address)) is None:
            request = checked(body)
            return self.choose(request.get("model")).chat(request, presence)
        if isinstance(self.choose(read(body).get("model")), echo.Echo):
            return format(body, presence)
        raise WireError(404, "The local model speaks chat completions; the model 'echo' answers here.", param="model")

    def status(self) -> Status:
        """Who answers, or would."""
        status = self._look()
        if self._failure and status.backend == "local":
            return replace(status, backend=echo.ID, model=echo.ID, path=None, reason=self._failure)
        return status

    def listing(self) -> list[dict[str, Any]]:
        """The models of GET /v1/models, the one that answers first. The echo says why it has to.

        A function may show this to anybody: no paths of this machine in it.
        """
        status = self.status()
        first = _entry(status.model) | ({"reason": status.reason, "hint": status.hint} if status.reason else {})
        return [first] if status.model == echo.ID else [first, _entry(echo.ID)]

    def _load(self, status: Status) -> None:
        assert status.path is not None
        try:
            self._local = Local(status.path, status.model)
        except (ImportError, OSError, RuntimeError) as error:
            self._failure = f"{status.model} could not be loaded"
            print(f"lampyr model: {self._failure} ({error}); the echo answers", file=sys.stderr, flush=True)


def _entry(id: str) -> dict[str, Any]:
    return {"id": id, "object": "model", "created": 0, "owned_by": "this-machine"}
