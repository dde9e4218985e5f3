"""What a snapshot is told in order to import one function. Secrets are not in it: they go another way."""

from __future__ import annotations

from lampyr.build.environment import Packages
from lampyr.config import Config
from lampyr.runtime.channel import Message
from lampyr.types import Function, Project

# asyncio's own default for blocking calls; a function that serves one request at a time needs few.
MAX_THREADS = 40


def of(function: Function, project: Project, config: Config, packages: Packages) -> Message:
    """The spec of one function. Paths are absolute, memory in MiB, times in seconds."""
    base = project.app.parent
    return {
        "root": str(project.root),
        "base": str(base),
        "file": str(function.file),
        "project_paths": list(dict.fromkeys((str(base), str(project.root)))),
        "site": list(packages.paths),
        "isolated": packages.isolated,
        "memory_mib": function.settings.memory,
        "threads": min(function.settings.concurrency + 4, MAX_THREADS),
        "stream_keepalive": config.server.stream_keepalive,
        "route": function.route,
        "network": function.settings.network,
    }
