"""Fixtures of all tests; what they hand out is in tests/support/serving.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Serve, Server, write


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run in several processes (./do test), those that share a server run in the same one."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_company(item)))


def _company(item: pytest.Item) -> str:
    """The folder where its tests have one server, in the contract one for each command; else the file."""
    folder = item.path.parent.name
    if folder == "contract":
        assert isinstance(item, pytest.Function)
        return f"contract {item.callspec.params['server']}"
    return folder if folder == "isolation" else str(item.path)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve({"app/api/x/route.py": "..."}, command="start")` → a Server that ends with the test."""
    servers: list[Server] = []

    def start(
        files: dict[str, str], *arguments: str, command: str = "start", env: dict[str, str] | None = None
    ) -> Server:
        root = tmp_path / f"project{len(servers)}"
        write(root, files)
        servers.append(Server(root, command, *arguments, env=env))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
