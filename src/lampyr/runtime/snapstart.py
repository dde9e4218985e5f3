"""The hooks under the names AWS gives them for its Python runtime: the package `snapshot_restore_py`.

A function written for AWS Lambda SnapStart runs unchanged, whether or not it brings that package along: this module is
there in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from lampyr.runtime import context

__all__ = ["register_after_restore", "register_before_snapshot"]

F = TypeVar("F", bound=Callable[..., object])


def register_before_snapshot(func: F, *args: Any, **kwargs: Any) -> F:
    """The same as `before_snapshot`, with arguments to call `func` with."""
    context.before_snapshot(partial(func, *args, **kwargs) if args or kwargs else func)
    return func


def register_after_restore(func: F, *args: Any, **kwargs: Any) -> F:
    """The same as `after_restore`, with arguments to call `func` with."""
    context.after_restore(partial(func, *args, **kwargs) if args or kwargs else func)
    return func


sys.modules.setdefault("snapshot_restore_py", sys.modules[__name__])
