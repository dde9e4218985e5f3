"""What the gateway has of one function, and calls of it, with no process behind them: for tests in one process.

They are the real objects. Compiled classes (pyproject.toml) take no others in their place.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lampyr.core.masking import Masker
from lampyr.gateway.admission import Admission, Crowd
from lampyr.gateway.call import Call
from lampyr.gateway.connections import Connections
from lampyr.gateway.exchange import Exchange
from lampyr.gateway.head import Head
from lampyr.gateway.http import Connection
from lampyr.gateway.log import Log
from lampyr.gateway.metering import Book
from lampyr.gateway.reply import Replies
from lampyr.gateway.service import Service
from lampyr.ledger.journal import Journal
from lampyr.node import limits
from lampyr.node.pool import Pool
from lampyr.node.snapshots import Base
from lampyr.types import Function, Settings


def pool(loop: asyncio.AbstractEventLoop, folder: Path, **settings: Any) -> Pool:
    """That of a function /x, which nobody has called."""
    file, settings_ = folder / "app/x/route.py", Settings(**settings)
    function = Function(route="/x", parts=("x",), file=file, methods=("GET",), asgi=False, settings=settings_)
    spec = {"route": "/x", "memory_mib": settings_.memory}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "open_group", lambda top: (None, {}))  # for no process; and a process has few of them
        base = Base(loop, print)
    return Pool(function, base, spec, {}, str(folder), lambda *_: lambda *_: None, lambda _: None)


def service(pool: Pool, log: Log, masker: Masker, folder: Path) -> Service:
    """The function as a deployment with these secrets serves it."""
    book = Book(Journal(folder / "journal", print, 65536), "/x", "d", None)
    admission = Admission(pool.function.settings, None, None)
    return Service(pool, admission, book, log, Replies(masker), Crowd(), shows_tracebacks=False)


def call(service: Service, target: str = "/x") -> Call:
    """A call by a client that has begun when the clock of this machine began."""

    async def connection() -> Connection:
        return Connection(lambda _: None, lambda: "", Connections(100))

    head = Head("GET", target, [], "localhost", False, True, 0, False, b"", b"")
    exchange = Exchange(service.pool.loop.run_until_complete(connection()), head, "i" * 24, 0.0)
    return Call(service, exchange, b"", 0)
