"""Which tests run in the same process where there are several (pytest --numprocesses): those that share a server.

xdist's own way, a mark that becomes a part of the test's name (`--dist loadgroup`), does nothing with pytest 9.2.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class Companies(LoadScopeScheduling):
    """Hands out whole companies of tests, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        """The company of a test: its file, but the contract has one for each command, and isolation is one."""
        file, _, name = nodeid.partition("::")
        if "/contract/" in file:
            return "contract start" if "[start" in name else "contract dev"
        return "isolation" if "/isolation/" in file else file
