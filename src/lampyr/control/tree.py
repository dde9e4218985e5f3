"""The state of a project's files on disk, cheap enough to look at before every request in development."""

from __future__ import annotations

import os
from pathlib import Path

# What an import may read. A database or a log that a function writes must not make its own code look changed.
WATCHED = (
    ".py", ".toml", ".txt", ".md", ".json", ".yaml", ".yml", ".html", ".jinja", ".j2", ".sql", ".cfg", ".ini",
    "uv.lock", ".py.lock",
)  # fmt: skip
SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "site-packages", "dist", "build", "public"})

State = dict[str, tuple[int, int, int]]


def look(root: Path) -> State:
    """Every file that could matter: path → time of modification in ns, size, inode. Folders with a dot are skipped."""
    state: State = {}
    pending = [str(root)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            name = entry.name
            try:
                if entry.is_dir():
                    if name[0] != "." and name not in SKIPPED and not entry.is_symlink():
                        pending.append(entry.path)
                elif name.endswith(WATCHED) or name.startswith(".env"):
                    stat = entry.stat()
                    state[entry.path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            except OSError:
                continue
    return state


def files_in(folder: Path | None) -> State:
    """Every file under `public/`: which there are decides what is served, what is in them whether that is allowed."""
    state: State = {}
    pending = [str(folder)] if folder is not None else []
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    stat = entry.stat()
                    state[entry.path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            except OSError:  # it has just been removed, or is a link to nothing
                continue
    return state


def changed(old: State, new: State) -> set[str]:
    """Paths that were added, removed or written."""
    return {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
