"""Where a vault lies in the state directory, and how its files are written: whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lampyr.errors import VaultError

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
_TEMPORARY = ".writing-"

# The variable that holds the master key where no file does.
VARIABLE = "LAMPYR_MASTER_KEY"


# When a file was last replaced, and by which; None: it is not there.
Stamp = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Place:
    """A vault's files in a state directory. The mark is outside the folder, so that no copy of it brings it along."""

    state: Path

    @classmethod
    def of(cls, state: str) -> Place:
        """The place of the vault in this state directory."""
        return cls(Path(state))

    @property
    def folder(self) -> Path:
        return self.state / "vault"

    @property
    def vault(self) -> Path:
        return self.folder / "secrets.vault"

    @property
    def key(self) -> Path:
        return self.folder / "master.key"

    @property
    def next_key(self) -> Path:
        """The new master key, while a rotation is under way."""
        return self.folder / "master.key.next"

    @property
    def trail(self) -> Path:
        return self.folder / "audit.log"

    @property
    def mark(self) -> Path:
        return self.state / "vault.mark"

    def exists(self) -> bool:
        """Whether there is, or has been, a vault."""
        return self.vault.exists() or self.mark.exists()

    def stamp(self) -> Stamp:
        """Another one means that the vault has changed."""
        try:
            found = self.vault.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    @contextmanager
    def locked(self, *, alone: bool) -> Iterator[None]:
        """Hold the lock, `alone` to write, with others to read. It goes with the process, however that ends."""
        if alone:
            _make(self.folder)
        with _refused(self.folder):
            fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            if alone:
                self._sweep()
            yield
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Take away what a writer left that was killed."""
        for folder in (self.folder, self.state):
            for path in folder.glob(f"{_TEMPORARY}*"):
                path.unlink(missing_ok=True)


def read(path: Path) -> bytes | None:
    """The bytes of a file; None where there is none."""
    with _refused(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, in one step that survives a crash at any moment. The caller holds the lock.

    A temporary file that only we may read is written through to the disk and takes the name; then the folder is written
    through, without which the new name may be forgotten. Raises VaultError, with the old file as it was.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    with _refused(path):
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            temporary.rename(path)
            _flush(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def append(path: Path, data: bytes, at: int) -> None:
    """Write `data` at the byte `at` of a file and end it there: what a writer left unfinished behind `at` goes."""
    with _refused(path):
        is_new = not path.exists()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            os.ftruncate(fd, at)
            written = 0
            while written < len(data):
                written += os.pwrite(fd, data[written:], at + written)
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, at)
            raise
        finally:
            os.close(fd)
        if is_new:
            _flush(path.parent)


def move(path: Path, to: Path) -> None:
    """Rename a file, and have the disk know it."""
    with _refused(path):
        path.rename(to)
        _flush(to.parent)


def _make(folder: Path) -> None:
    with _refused(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        _flush(folder.parent)


def _flush(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What the system refuses, in words."""
    try:
        yield
    except OSError as error:
        message = f"the vault's {path} cannot be read or written: {error.strerror}"
        raise VaultError(message, "what was there is unchanged; free space, or check permissions") from error
