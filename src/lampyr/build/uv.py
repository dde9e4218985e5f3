"""How uv is called: which of the environment it gets, what it says while it works, and what it says went wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from lampyr.errors import LampyrError
from lampyr.runtime import sandbox

# Of the server's environment, which may hold functions' secrets, only what ways to an index and compilers need.
PASSED_ON = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "NETRC", "SSH_AUTH_SOCK"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("CC", "CXX", "CPP", "AR", "LD", "AS", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "LD_LIBRARY_PATH"),
        *("LIBRARY_PATH", "CPATH", "PKG_CONFIG_PATH", "CMAKE_PREFIX_PATH", "CUDA_HOME", "MACOSX_DEPLOYMENT_TARGET"),
        *("CARGO_HOME", "RUSTUP_HOME", "RUSTFLAGS"),
    )
)
# uv's own, without those that would have it do something else than it is told.
OURS_TO_SAY = frozenset(
    (
        *("UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_PROJECT"),
        *("UV_WORKING_DIR", "UV_LOCKED", "UV_FROZEN", "UV_NO_SYNC", "UV_ISOLATED", "UV_NO_EDITABLE"),
        *("UV_NO_DEFAULT_GROUPS", "UV_NO_DEV", "UV_DEV", "UV_NO_GROUP", "UV_EXCLUDE", "UV_ENV_FILE", "UV_NO_PROGRESS"),
    )
)
# What users of pip have set (pip's configuration files are not read).
FROM_PIP = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
    "PIP_CONSTRAINT": ("UV_CONSTRAINT",),
    "PIP_TRUSTED_HOST": ("UV_INSECURE_HOST",),
    "PIP_CERT": ("SSL_CERT_FILE",),
}
# Where a system has its own certificates: whoever trusts a proxy, or an index of his, has put that there.
CERTIFICATES = (
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"),
    *("/etc/ssl/cert.pem", "/System/Library/Keychains"),
)
# Where one of these is set, it is said already whose are believed.
_OWN_CERTIFICATES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS"}
# What `uv pip` has options for, and no variables.
NO_INDEX, NO_BUILD = "PIP_NO_INDEX", "UV_NO_BUILD"
MAX_CHARS = 600
ENDS_WITHIN_S = 5.0
_CREDENTIALS = re.compile(r"(\w://)[^/\s@]+@")
_BOXES = re.compile("[\u2500-\u257f\u25b6\u00d7]+")


class UvError(Exception):
    """What uv said, short and without credentials, and what may help."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def variables(process: Mapping[str, str]) -> dict[str, str]:
    """Of an environment, what uv gets: its own variables, and pip's where uv's are not set."""
    passed = {*PASSED_ON, NO_INDEX}
    env = {name: value for name, value in process.items() if name in passed or name.startswith("UV_")}
    for name in OURS_TO_SAY:
        env.pop(name, None)
    if not _OWN_CERTIFICATES & {*env, *process} and any(os.path.exists(path) for path in CERTIFICATES):
        env["UV_SYSTEM_CERTS"] = "1"
    for theirs, ours in FROM_PIP.items():
        if process.get(theirs) and not any(name in env for name in ours):
            env[ours[0]] = ",".join(process[theirs].split()) if theirs == "PIP_FIND_LINKS" else process[theirs]
    return env


class Uv:
    """Runs uv for one project at a time. `env` is what `variables` has chosen; `stop` may be called by any thread."""

    def __init__(self, env: Mapping[str, str], tell: Callable[[str], None]) -> None:
        self._env = {
            **env,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "GIT_TERMINAL_PROMPT": "0",  # nobody is there to answer
            "NO_COLOR": "1",
        }
        self._no_index = ("--no-index",) if _says_yes(env, NO_INDEX) else ()
        self._no_build = ("--no-build",) if _says_yes(env, NO_BUILD) else ()
        self._tell = tell
        self._hidden = sorted(_credentials(env), key=len, reverse=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def install(self, *arguments: str, root: Path, **more: str) -> str:
        """`run` of what may ask an index."""
        no_build = self._no_build if arguments[0] == "pip" else ()
        return self.run(*arguments, *self._no_index, *no_build, root=root, **more)

    def run(self, *arguments: str, root: Path, **more: str) -> str:
        """What uv said, its working folder being `root`; `more` are variables. Raises UvError."""
        if self._stopped:
            raise UvError("it was stopped", "")
        self._process = process = subprocess.Popen(
            [_binary(), *arguments],
            cwd=root,
            env={**self._env, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches us, who end it
            umask=0o022,  # functions have user ids of their own and must be able to read it
            preexec_fn=sandbox.end_with_parent,
        )
        said: list[str] = []
        assert process.stderr is not None
        try:
            with process.stderr as pipe:
                for line in pipe:
                    said.append(self._clean(line.decode(errors="replace").rstrip()))
                    if _is_news(said[-1]):
                        self._tell(said[-1].strip())
            process.wait()
        finally:
            self._end(process)
        if process.returncode != 0:
            raise _refusal(said)
        return "\n".join(said)

    @property
    def offline(self) -> bool:
        """Whether it may use no network, and so look for nothing new."""
        return _says_yes(self._env, "UV_OFFLINE")

    def stop(self) -> None:
        """End what runs."""
        self._stopped = True
        if (process := self._process) is not None:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # with what builds a package
            except ProcessLookupError:
                pass
            process.wait(ENDS_WITHIN_S)

    def _clean(self, text: str) -> str:
        for value in self._hidden:
            text = text.replace(value, "****")
        return _CREDENTIALS.sub(r"\1****@", text)


def _says_yes(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() in ("1", "true", "yes", "on")


def _binary() -> str:
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError:
        raise LampyrError(
            "uv is not there, which installs packages", "pip install uv, where Lampyr is installed"
        ) from None


def _credentials(env: Mapping[str, str]) -> Iterator[str]:
    """What must never be shown: passwords and tokens for indexes, as they are and as a URL has them."""
    for name, value in env.items():
        found = re.findall(r"\w://([^/\s@]+)@", value)
        if name.endswith(("_PASSWORD", "_TOKEN", "_KEY", "_SECRET")):
            found.append(value)
        for one in found:
            for part in (one, *one.split(":", 1)[-1:]):
                if len(part) > 3:
                    yield part
                    yield unquote(part)


def _is_news(line: str) -> bool:
    return line.lstrip().startswith(("Resolved", "Downloading", "Building", "Prepared", "Updating", "Bytecode"))


# --- what went wrong

_HINTS = (
    (
        ("401 Unauthorized", "403 Forbidden"),
        "the index wants credentials: in its URL (UV_DEFAULT_INDEX, UV_INDEX), or ~/.netrc",
    ),
    (
        ("network was disabled", "error sending request", "Failed to fetch", "Could not connect", "dns error"),
        "is the index reachable? UV_DEFAULT_INDEX and HTTPS_PROXY say how; packages that are installed already, in the "
        "project's .venv or beside Lampyr, need no index",
    ),
    (
        ("Hash mismatch", "hash mismatch", "hashes"),
        "what the index has is not what was locked; look why, before you lock it again",
    ),
    (
        ("Failed to build", "build backend", "failed to build", "No module named 'distutils'"),
        "it is built from source here: install the compilers and headers it needs, or ask for a version that has a "
        "wheel for this Python",
    ),
    (
        (
            *("no wheels with a matching", "no wheel", "not have wheels", "matching platform"),
            *("source distributions is disabled", "no usable wheels"),
        ),
        "ask for a version that has a wheel for this Python",
    ),
    (("was not found in the package registry", "was not found"), "is its name right? UV_INDEX names further indexes"),
    (("there is no version of", "only the following versions"), "ask for a version that exists"),
    (
        ("requires Python ",),
        f"ask for a version that works with Python {sys.version_info.major}.{sys.version_info.minor}",
    ),
    (("No space left",), "free some space on the disk"),
)


def _refusal(said: list[str]) -> UvError:
    """The error and its causes in one line, with the last lines of a build where one failed."""
    rows = [" ".join(_BOXES.sub(" ", row).split()) for row in said]
    begin = next((at for at, row in enumerate(rows) if row.startswith(("error:", "No solution", "Failed"))), 0)
    hints = [row.removeprefix("hint: ") for row in rows if row.startswith("hint:")]
    rows = [row for row in rows[begin:] if row and not row.startswith("hint:")]
    built = next((at for at, row in enumerate(rows) if row in ("[stderr]", "[stdout]")), len(rows))
    parts = [re.sub(r"^(error|cause|Caused by): ?", "", row) for row in [*rows[:built], *rows[built + 1 :][-3:]]]
    message = _shortened(": ".join(part.rstrip(":.") for part in parts if part)) or "uv failed without a word"
    text = "\n".join(said)
    hint = next((hint for words, hint in _HINTS if any(word in text for word in words)), "")
    return UvError(message, hint or (_shortened(hints[0]) if hints else ""))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 3]}..."
