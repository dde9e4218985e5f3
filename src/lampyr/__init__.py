"""The names a route file may import. Each is loaded when it is first used, so that `import lampyr` costs nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lampyr.errors import BadRequest as BadRequest
    from lampyr.errors import ClientDisconnect as ClientDisconnect
    from lampyr.runtime.context import Context as Context
    from lampyr.runtime.context import after as after
    from lampyr.runtime.context import after_restore as after_restore
    from lampyr.runtime.context import before_snapshot as before_snapshot
    from lampyr.runtime.context import cookies as cookies
    from lampyr.runtime.context import env as env
    from lampyr.runtime.context import headers as headers
    from lampyr.runtime.context import not_found as not_found
    from lampyr.runtime.context import permanent_redirect as permanent_redirect
    from lampyr.runtime.context import redirect as redirect
    from lampyr.runtime.forms import Form as Form
    from lampyr.runtime.forms import UploadedFile as UploadedFile
    from lampyr.runtime.request import Request as Request
    from lampyr.runtime.response import Response as Response
    from lampyr.runtime.stream import Event as Event
    from lampyr.runtime.stream import sse as sse
    from lampyr.runtime.ui import ui_messages as ui_messages

_HOME = {
    "BadRequest": "errors",
    "ClientDisconnect": "errors",
    "Context": "runtime.context",
    "Event": "runtime.stream",
    "Form": "runtime.forms",
    "Request": "runtime.request",
    "Response": "runtime.response",
    "UploadedFile": "runtime.forms",
    "after": "runtime.context",
    "after_restore": "runtime.context",
    "before_snapshot": "runtime.context",
    "cookies": "runtime.context",
    "env": "runtime.context",
    "headers": "runtime.context",
    "not_found": "runtime.context",
    "permanent_redirect": "runtime.context",
    "redirect": "runtime.context",
    "sse": "runtime.stream",
    "ui_messages": "runtime.ui",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        import sys

        raise AttributeError(f"module 'lampyr' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    from importlib import import_module

    value: object = getattr(import_module(f"lampyr.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
