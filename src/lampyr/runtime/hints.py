"""What to do about the errors that most people meet first."""

from __future__ import annotations

import re
import sys

_KEY = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")


def cure(error: BaseException) -> str:
    """The way out of `error`, or "" where only the code itself can say."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _package(error.name)
    return getattr(error, "lampyr_hint", "") or _key(error)


def _package(name: str) -> str:
    """For a package that is not there: what to do, and where it would have been found."""
    package = name.partition(".")[0]
    if package != name and package in sys.modules:  # the package is there, a module of it is not
        return ""
    folder = next((path for path in sys.path if path.endswith(("site-packages", "dist-packages"))), sys.prefix)
    return f"add {package!r} to the project's dependencies (requirements.txt); functions import from {folder}"


def _key(error: BaseException) -> str:
    """For a client of an AI API that was given no key. The SDKs have no class of their own for that, only words."""
    sdk, text = _origin(error), str(error)
    if sdk == "openai" and "api_key" in text:
        found = _KEY.search(text)
        key = found[0] if found else "OPENAI_API_KEY"
        return f"put {key}=... into .env.local, or [providers.local] into lampyr.toml for a model on this machine"
    if sdk == "anthropic" and ("api_key" in text or "authentication method" in text):
        return "put ANTHROPIC_API_KEY=... into .env.local"
    return ""


def _origin(error: BaseException) -> str:
    """The package that raised `error`."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    module = where.tb_frame.f_globals.get("__name__") if where is not None else None
    return module.partition(".")[0] if isinstance(module, str) else ""
