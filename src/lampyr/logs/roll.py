"""The lines of one function on disk: added at the end of its newest file, let go with its eldest."""

from __future__ import annotations

import os
from pathlib import Path

from lampyr.logs import files

# So many files share what may be kept, so that a part of it goes at a time.
FILES = 8


class Roll:
    """One writer, any number of readers. `keep_bytes` of lines are kept, about."""

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self._folder = folder
        self._keep_bytes = keep_bytes
        self._number = self._size = 0
        self._torn = False
        self._known = False

    def write(self, lines: bytes) -> None:
        """Add whole lines. Raises OSError; a line is then there, torn, or not."""
        if not self._known:
            self._find()
        if self._torn:
            lines = b"\n" + lines  # who reads passes over what is not a line
        if self._size and self._size + len(lines) > self._keep_bytes // FILES:
            self._number += 1
            self._size = 0
            self._forget()
        fd = self._open()
        try:
            self._torn = True
            view = memoryview(lines)
            while view:
                written = os.write(fd, view)
                self._size += written
                view = view[written:]
            self._torn = False
        finally:
            os.close(fd)

    def _open(self) -> int:
        """The newest file. It is opened each time: a thousand functions would be a thousand descriptors."""
        path, flags = files.file(self._folder, self._number), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._folder.parent.mkdir(mode=0o700, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)

    def _find(self) -> None:
        """Go on where the writer before, which may have been killed, has stopped."""
        numbers = files.numbers(self._folder)
        self._number = numbers[-1] if numbers else 1
        try:
            with open(files.file(self._folder, self._number), "rb") as newest:
                self._size = newest.seek(0, os.SEEK_END)
                if self._size:
                    newest.seek(-1, os.SEEK_END)
                    self._torn = newest.read(1) != b"\n"
        except FileNotFoundError:
            pass
        self._known = True

    def _forget(self) -> None:
        """Let the eldest files go, so that there is room for another one."""
        room = self._keep_bytes - self._keep_bytes // FILES
        for number in reversed(files.numbers(self._folder)):
            file = files.file(self._folder, number)
            room -= file.stat().st_size
            if room < 0:
                file.unlink(missing_ok=True)


def forget_before(root: Path, before_s: float) -> None:
    """Let go of the files that were written to before that time, of all functions, and of folders that are empty."""
    for name in files.folders(root):
        folder = root / name
        for number in files.numbers(folder):
            file = files.file(folder, number)
            try:
                if file.stat().st_mtime < before_s:
                    file.unlink()
            except FileNotFoundError:
                pass
        try:
            folder.rmdir()
        except OSError:  # it has files
            pass
