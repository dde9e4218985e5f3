"""The four places every row of the contract is held against: two runtimes, each on `lampyr dev` and `lampyr start`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from contract import COMMANDS, RUNTIMES, Place, project
from serving import Server, write

_numbers = count(1)


@pytest.fixture(scope="session")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="session", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, marks: Path) -> Iterator[Server]:
    """One server on the routes and files of every module of this folder that is to be run."""
    ours = [item for item in request.session.items if item.path.parent == Path(__file__).parent]
    modules = {item.module for item in ours if isinstance(item, pytest.Function)}
    routes = {name: text for module in modules for name, text in getattr(module, "ROUTES", {}).items()}
    files = {name: text for module in modules for name, text in getattr(module, "FILES", {}).items()}
    root = tmp_path_factory.mktemp("contract") / request.param
    write(root, project(routes, files, marks))
    for module in modules:
        getattr(module, "prepare", lambda root: None)(root)
    server = Server(root, request.param)
    yield server
    server.stop()


@pytest.fixture(params=RUNTIMES)
def place(request: pytest.FixtureRequest, server: Server, marks: Path) -> Place:
    return Place(server, server.command, request.param, marks)


@pytest.fixture
def mark() -> str:
    """A name for the marks of one test."""
    return f"m{next(_numbers)}"
