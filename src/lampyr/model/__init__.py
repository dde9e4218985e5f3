"""The local language model: which one there is, and a process that speaks the OpenAI wire format on loopback.

`status()` says which model answers and why; `command()` is how the supervisor starts the process.
"""

from __future__ import annotations

from lampyr.model.choice import Status, command, status

__all__ = ["Status", "command", "status"]
