"""The token of a state directory's console, and the cookie that stands for it in a browser."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from lampyr.errors import StateError

FILE = "console.token"
COOKIE_S = 7 * 86400


def keep(state_dir: Path) -> str:
    """The token in `state_dir`, made where there is none: whoever was told it once may come back after a restart.

    Raises StateError.
    """
    path = state_dir / FILE
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "r+", encoding="ascii") as file:
            os.fchmod(fd, 0o600)
            text = file.read().strip()
            if len(text) < 32:
                text = secrets.token_urlsafe(32)
                file.seek(0)
                file.truncate()
                file.write(text + "\n")
    except (OSError, ValueError) as error:
        raise StateError(
            f"the console's token in {path} cannot be kept: {error}",
            "remove that file, or name another state directory with --state-dir",
        ) from error
    return text


class Token:
    """Compares in constant time. A cookie holds when it ends and a signature, so that it outlives this process."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._key = hashlib.sha256(b"lampyr console cookie\0" + self._text).digest()

    def opens(self, given: str) -> bool:
        """Whether it is this token."""
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._text)

    def cookie(self, now_s: float) -> str:
        """The value of a cookie for the next days."""
        until_s = str(int(now_s) + COOKIE_S)
        return f"{until_s}.{self._signature(until_s)}"

    def opens_with(self, cookie: str, now_s: float) -> bool:
        """Whether a cookie is of this token and not too old."""
        until_s, _, signature = cookie.partition(".")
        right = hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), self._signature(until_s).encode())
        return right and int(until_s) > now_s

    def _signature(self, until_s: str) -> str:
        return hmac.new(self._key, until_s.encode("utf-8", "surrogateescape"), "sha256").hexdigest()
