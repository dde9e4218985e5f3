"""Calls that wait for an instance of one function: first come, first served."""

from __future__ import annotations

from collections import deque

from lampyr.node.caller import Caller

# One more is refused with 503 instead of waiting for nothing.
MOST = 1000


class Waiting(deque[Caller]):
    """The eldest first; who is refused hears why."""

    __slots__ = ()

    def add(self, caller: Caller) -> bool:
        """False where there is no room: then `caller` has been refused."""
        if len(self) >= MOST:
            caller.refused("FUNCTION_THROTTLED")
            return False
        self.append(caller)
        return True

    def refuse(self, code: str, failure: dict[str, object] | None = None) -> None:
        """There will be no instance for any of them."""
        callers = list(self)
        self.clear()
        for caller in callers:
            caller.refused(code, failure)

    def charge(self, code: str) -> None:
        """One call pays for one failed start, so that a function that cannot start ends its queue and does not spin.

        Each sees one failure that it does not pay for: somebody else may have killed that process.
        """
        spared = next((caller for caller in self if not caller.spared), None)
        if spared is not None:
            spared.spared = True
        else:
            self.popleft().refused(code)
