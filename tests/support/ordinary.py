"""Run a command as an ordinary user, when the tests themselves run as root: python ordinary.py USER WALLS COMMAND...

WALLS is "open", or "container": no namespaces can be made, as in most containers.

Python may lie in root's own home, which nobody else may enter; in a mount namespace of the command's it lies open.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lampyr.runtime import kernel, room


def closed(path: Path) -> Path | None:
    """The uppermost folder on the way to `path` that others may not enter."""
    way = [*reversed(path.parents), path]
    return next((folder for folder in way if folder.is_dir() and not folder.stat().st_mode & 0o001), None)


def open_up(paths: list[Path]) -> None:
    kernel.unshare(kernel.NEW_MOUNTS)
    kernel.mount(None, "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    shut: dict[Path, Path] = {}
    for path in paths:
        if path.exists() and (folder := closed(path)):
            shut.setdefault(folder, path)
    for folder, path in shut.items():
        tree = kernel.read_only_tree(str(path))
        kernel.mount("tmpfs", str(folder), "tmpfs", 0, "mode=755")
        path.mkdir(parents=True)
        kernel.attach(tree, str(path))


if __name__ == "__main__":
    user = int(sys.argv[1])
    open_up(sorted(Path(path) for path in room.python_paths()))
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if sys.argv[2] == "container":
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.refuse_calls()
    os.environ["HOME"] = "/tmp"
    os.execv(sys.argv[3], sys.argv[3:])
