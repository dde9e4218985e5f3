"""Stacks of faulthandler without the machinery that has called the handler."""

from __future__ import annotations

import os
from asyncio import events

import lampyr
from lampyr.gateway.stacks import Stacks

USERS = b'  File "/srv/app/x/route.py", line 7 in GET'
OURS = f'  File "{os.path.dirname(lampyr.__file__)}/runtime/invocation.py", line 9 in run'.encode()
ASYNCIO = f'  File "{events.__file__}", line 9 in _run'.encode()
RUNPY = b'  File "<frozen runpy>", line 9 in _run_code'
HEAD, NEXT = b"Thread 0x00007f2d0a9afb80 (most recent call first):", b"Current thread 0x1 (most recent call first):"


def shown(*lines: bytes) -> list[bytes]:
    stacks = Stacks()
    return [line for line in lines if stacks.shows(line)]


def test_what_is_below_the_users_frames_is_left_out() -> None:
    assert shown(HEAD, USERS, USERS, ASYNCIO, OURS, RUNPY) == [HEAD, USERS, USERS]
    assert shown(HEAD, USERS, ASYNCIO, USERS, OURS) == [HEAD, USERS, USERS]


def test_what_the_users_code_has_called_and_threads_without_any_stay() -> None:
    assert shown(HEAD, OURS, USERS, OURS, NEXT, OURS, RUNPY, b"said") == [HEAD, OURS, USERS, NEXT, OURS, RUNPY, b"said"]


def test_tracebacks_are_no_such_stacks() -> None:
    lines = [line.replace(b" in ", b", in ") for line in (USERS, OURS, RUNPY)]
    assert shown(*lines) == lines
