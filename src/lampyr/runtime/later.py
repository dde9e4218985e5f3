"""What packages import at their first call, imported before anything is forked from the process that has them.

`import openai` leaves the resources of its client to the first use of each, and anyio its backend to the first call
that needs one. In an instance that is the first request, so every cold start would pay for it again.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module

# What has been imported: what its first call imports. Of openai the chat alone; its Responses API is 4 MiB and 60 ms.
LATER = {"anyio": ("anyio._backends._asyncio",), "openai": ("openai.resources.chat.chat",)}


def import_later() -> None:
    """Import what the packages that are here would import at their first call."""
    for package, modules in LATER.items():
        if package in sys.modules:
            for module in modules:
                with suppress(Exception):  # another version than is known: its first call takes longer
                    import_module(module)
