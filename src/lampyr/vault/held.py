"""The master key that somebody gave to a server, in a file without a name.

The supervisor hands the file to each vault process and never reads it: the text is in no environment, and in no memory
but that of the vault process, which puts a new text there after a rotation.
"""

from __future__ import annotations

import os

from lampyr.runtime import kernel
from lampyr.runtime.channel import parcel, read_parcel
from lampyr.vault.place import VARIABLE

_BETWEEN = b"\0"  # neither a variable nor a typed text holds one


def of_environment() -> int:
    """The file, with what LAMPYR_MASTER_KEY holds; the variable is gone afterwards, from /proc/PID/environ too."""
    fd = parcel(b"")
    value = os.environb.get(VARIABLE.encode())
    if value is not None:
        os.pwrite(fd, value, 0)
        del value
        kernel.wipe_variable(VARIABLE)
    return fd


def put(fd: int, texts: list[str | None]) -> None:
    """Keep these texts, and no others. None stands for the key file."""
    data = _BETWEEN.join((one or "").encode("utf-8", "surrogateescape") for one in texts)
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))


def is_empty(fd: int) -> bool:
    """Whether nobody has given a key."""
    return os.fstat(fd).st_size == 0


def texts(fd: int) -> list[str | None]:
    """What is kept, one at least."""
    return [one.decode("utf-8", "surrogateescape") or None for one in read_parcel(fd).split(_BETWEEN)]
