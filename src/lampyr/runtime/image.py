"""A snapshot's memory as a file that has no name, so that its children can give back the pages they did not change.

Python writes to what it only looks at: a reference count goes up, and down again. After a fork the first such write
makes a page the child's own for good. A third of what the snapshot of a function has of its own, 330 pages of 880, hold
what its parent's hold. Where pages are a file's, mapped privately, whoever does not need its copy says so and has the
file's again (madvise(2), MADV_DONTNEED). Less is copied by a fork, too: pages that nobody has read yet have no entry in
the page tables.
"""

from __future__ import annotations

import os
from contextlib import suppress
from fcntl import fcntl

from lampyr.runtime import kernel
from lampyr.runtime.fork import KNOWN, alone, shed_threads

try:
    from lampyr.runtime import _image
except ImportError:  # Lampyr was installed without a C compiler: a function has 1.2 MiB more of its own
    _image = None  # type: ignore[assignment]  # a module, where there is one

# By the beginning of this name _image.c knows an image's mappings (proc_pid_maps(5)).
NAME = "lampyr"
PAGE_BYTES = 4096
# fcntl(2): no more seals, and neither shorter nor longer nor written to.
_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8


def taken() -> Image | None:
    """The image of this process, which has its memory from now on; None where there cannot be one."""
    if _image is None or not KNOWN or os.sysconf("SC_PAGE_SIZE") != PAGE_BYTES or not shed_threads():
        return None
    try:
        file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    with suppress(OSError):  # no memory left: what has been moved is right, the rest stays where it is
        _image.move(file)
    fcntl(file, _ADD_SEALS, _SEALS)
    os.fchmod(file, 0o444)  # or any function could give it attributes that another one reads (xattr(7))
    return Image(file)


class Image:
    """The file. It is taken in a process without secrets; what follows is for its children."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._pagemap = -1
        self._opened = {file: _file_at(file)}

    def watch(self) -> None:
        """Be able to tell which pages are this process's own. Only for the first process of a room, while it is alone.

        proc_pid_pagemap(5) says it; that is closed to the process itself where nobody may look into its memory. The
        file is opened anew: who shares a description can leave word for others in its offset (open(2)).
        """
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        with suppress(OSError):
            common, self._file = self._file, os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC)
            os.close(common)
            self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._opened = {fd: _file_at(fd) for fd in (self._file, self._pagemap) if fd >= 0}
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)

    def give_back(self) -> int:
        """Have the file's pages again where ours hold the same. How many; 0 where that cannot be."""
        if self._pagemap < 0 or not alone():
            return 0
        try:
            return _image.give_back(self._file, self._pagemap)
        except OSError:  # the user's import has closed descriptors that were not its own
            return 0

    def close(self) -> None:
        """Go on without it: what is mapped stays."""
        for fd, file in self._opened.items():
            with suppress(OSError):
                if _file_at(fd) == file:
                    os.close(fd)


def _file_at(fd: int) -> tuple[int, int]:
    """What is open there: the user's import may have closed what was, and something else then takes its number."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
