"""A shared snapshot: has imported packages that several functions use, none of their code, and forks their snapshots.

It holds no secret. A package that asks for a variable at its import which this process does not have may be asking for
one: what was asked for is reported, and the gateway then has the functions import it themselves.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from lampyr.runtime import context, frameworks, holes, load, reseed, sandbox, snapshot
from lampyr.runtime.channel import Channel, Message
from lampyr.runtime.forker import Forker
from lampyr.runtime.image import Image, taken
from lampyr.runtime.later import import_later
from lampyr.runtime.rehearsal import TIMES_AGAIN, rehearse, rehearse_import


class Asked(os._Environ[str]):
    """`os.environ`, remembering which names were asked for; "*" for whoever looked at all of them."""

    def __init__(self, real: os._Environ[str]) -> None:
        self.__dict__.update(real.__dict__)  # the same variables, not a copy of them
        self.names: set[str] = set()

    def __getitem__(self, key: str) -> str:
        self.names.add(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        self.names.add("*")
        return super().__iter__()


def shared(
    spec: Message, channel: Channel, logs: list[int], means: sandbox.Means, loop: Any, of_base: Image | None
) -> NoReturn:
    """Serve as the shared snapshot of `spec["packages"]`."""
    sandbox.name_process("shared")
    snapshot.connect(*logs)
    sandbox.adopt_orphans()
    try:
        apart = sandbox.share(spec, means, partial(snapshot.receive_env, channel))
        os.chdir(spec["root"])
        asked = _import(spec)
    except BaseException as error:
        snapshot.fail(channel, error, spec["root"])
    frameworks.rehearse()
    if not context.hooks["after_restore"]:  # else a package's own would run in here
        rehearse_import(TIMES_AGAIN)
        rehearse(sandbox.adopt_orphans, times=TIMES_AGAIN)
    gc.collect()
    reseed.find(())  # the generators of the packages; what is found is found for all that are forked from here
    gc.freeze()
    filled = holes.fill()  # noqa: F841  as long as this process lives
    if sys.stdout is not None:  # it may have been replaced
        sys.stdout.flush()  # or every function would print again what an import did not end with a newline
    os.environ.clear()  # each function is told its own
    image = taken()
    if of_base is not None:
        of_base.close()
    channel.send({"ready": [], "asked": sorted(asked), "threads": snapshot.threads()})
    forker = Forker(channel)
    while True:
        order, fds = forker.next_request()
        if forker.fork(apart.fork, fds):
            forker.close()
            snapshot.function(order, Channel.from_fd(fds[0]), fds[1:], apart.means, loop, image)


def _import(spec: dict[str, Any]) -> set[str]:
    """Import the packages; what they asked the environment for."""
    load.add_paths(spec["root"], [], spec["site"], isolated=spec["isolated"])
    real = os.environ
    os.environ = asked = Asked(real)
    try:
        for name in spec["packages"]:
            import_module(name)
        import_later()
    finally:
        os.environ = real  # noqa: B003  it is the same environment
    return asked.names
