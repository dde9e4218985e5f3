"""Tells a URL of the operator's what has happened: on a thread, so that nobody waits for it, and not for ever."""

from __future__ import annotations

import queue
import threading
import time
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
# Waits before the second and the third attempt; there is no fourth.
PAUSES_S = (1.0, 5.0)
MOST_WAITING = 100
# Answers that another attempt may change.
AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class Webhook:
    """`problems` are lines for the log, without the URL: its path may be a credential."""

    def __init__(self) -> None:
        self.problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waiting: queue.Queue[tuple[str, bytes]] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def tell(self, url: str, event: str) -> None:
        """POST an event, which is JSON without any secret. Returns at once."""
        try:
            self._waiting.put_nowait((url, event.encode()))
        except queue.Full:
            self.problems.put(f"error: {_host(url)} takes no webhooks; one is dropped")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            url, body = self._waiting.get()
            problem = ""
            for pause_s in (0.0, *PAUSES_S):
                time.sleep(pause_s)
                problem, again = _post(url, body)
                if not again:
                    break
            if problem:
                self.problems.put(f"error: the webhook at {_host(url)} was not told: {problem}")


def _post(url: str, body: bytes) -> tuple[str, bool]:
    """What went wrong ("" for nothing), and whether another attempt may help. Follows no redirect, asks no proxy."""
    import httpcore2

    headers: list[tuple[bytes | str, bytes | str]] = [("content-type", "application/json"), ("user-agent", "lampyr")]
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
    try:
        with (
            httpcore2.ConnectionPool() as pool,
            pool.stream("POST", url, headers=headers, content=body, extensions={"timeout": timeout}) as response,
        ):
            status = response.status
    except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
        return f"it cannot be reached ({type(error).__name__})", True
    except Exception as error:  # whatever it is, the next one is told
        return type(error).__name__, False
    return ("" if 200 <= status < 300 else f"it answers with status {status}"), status in AGAIN


def _host(url: str) -> str:
    return urlsplit(url).hostname or "?"
