"""Whether the client of one request is still there, so that no token is made for nobody."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType

LOOK_SECONDS = 0.05


class Presence:
    """Looks at a client's socket while its request is answered: `with Presence(socket) as presence: ...`.

    A thread of its own does the looking, because the one that answers is blocked in the model. A client that closes
    its sending side counts as gone, as with every ASGI server.
    """

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._left = threading.Event()
        self._answered = threading.Event()
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def __enter__(self) -> Presence:
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answered.set()

    @property
    def left(self) -> bool:
        """Whether the client has gone."""
        return self._left.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait that long, or until the client goes; True when it has gone."""
        return self._left.wait(seconds)

    def on_left(self, stop: Callable[[], None]) -> None:
        """Call `stop`, once, from another thread, when the client goes; at once if it has."""
        with self._lock:
            self._stop = stop
        if self.left:
            self._run()

    def _look(self) -> None:
        while not self._answered.wait(LOOK_SECONDS):
            if _is_closed(self._client):
                self._left.set()
                self._run()
                return

    def _run(self) -> None:
        with self._lock:
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()


def _is_closed(client: socket.socket) -> bool:
    try:
        poll = select.poll()
        poll.register(client, select.POLLIN)
        return bool(poll.poll(0)) and client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
