"""One server with a victim and an attacker, for all probes; and what this machine has to hold them apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hostile import ATTACKER, PATIENT, SECRET, VICTIM
from serving import Server, write

from lampyr.node import hierarchy
from lampyr.runtime import sandbox

MEANS = sandbox.find()
GROUPS, _ = hierarchy.find()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what cannot hold here, saying why; `lampyr doctor` says the same to people."""
    for item in items:
        for mark in item.iter_markers("needs"):
            for name in mark.args:
                if not (getattr(MEANS, name, None) or name in GROUPS):
                    item.add_marker(pytest.mark.skip(reason=f"this machine has no {name} ({MEANS.missing.get(name)})"))


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("isolation") / "project"
    write(
        root,
        {
            "app/victim/route.py": VICTIM,
            "app/attacker/[how]/route.py": PATIENT,
            "app/bomb/[how]/route.py": ATTACKER,
            "app/cut/route.py": f'network = "broker"\n{PATIENT}',
            ".env": f"SHARED_TOKEN={SECRET}\n",
            "notes.txt": "for everybody\n",
            ".git/config": "[remote]\n",
        },
    )
    server = Server(root, "start", env={"LAMPYR_PROBES": "1"})
    assert server.get("/victim").status == 200
    yield server
    server.stop()
