"""Fixtures of all tests; what they hand out is in tests/support/serving.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from serving import Serve, Server, write

# As Hypothesis does by itself where it knows that it is in CI: the same examples in each run, and none that fails for
# being slow. `--hypothesis-profile=hunt` looks for new ones.
HUNT = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("hunt", HUNT)
hypothesis.settings.register_profile("steady", HUNT, derandomize=True, database=None)
hypothesis.settings.load_profile("steady")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Who hands out the tests where they run in several processes (./do test)."""
    from companies import Companies

    return Companies(config, log)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve({"app/api/x/route.py": "..."}, command="start")` → a Server that ends with the test."""
    servers: list[Server] = []

    def start(
        files: dict[str, str],
        *arguments: str,
        command: str = "start",
        env: dict[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> Server:
        root = tmp_path / f"project{len(servers)}"
        write(root, files)
        servers.append(Server(root, command, *arguments, env=env, through=through))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
