"""What control keeps of deployments between one message and the next."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lampyr import config
from lampyr.build.scan import scan
from lampyr.control.registry import Registry
from lampyr.control.releases import Release, Releases


def test_a_preview_that_has_gone_from_the_disk_keeps_nothing_from_what_serves(tmp_path: Path) -> None:
    root, said = tmp_path / "project", list[dict[str, Any]]()
    (root / "app/x").mkdir(parents=True)
    (root / "app/x/route.py").write_text("def GET(): return 1\n")
    registry = Registry(tmp_path / "state", root)

    def make(id: str, environment: str) -> Release:
        folder = registry.folder(id)
        settings = config.load(folder)
        project = scan(folder, settings, root)
        return Release(project, project, settings, {"id": id}, os.open(os.devnull, os.O_RDONLY))

    def send(message: dict[str, Any], fds: tuple[int, ...]) -> None:
        said.append(message)

    active = registry.copy()
    registry.add(active, preview=False)
    (root / "app/x/route.py").write_text("def GET(): return 2\n")
    preview = registry.copy()
    registry.add(preview, preview=True)
    releases = Releases(registry, "http://x:1", make, send, lambda release: None)
    refusals: list[object] = []
    releases.begin(active, refusals.append)
    assert releases.renew(active).id == active and said == [{"preview": {"id": preview}}]
    shutil.rmtree(registry.folder(preview))
    assert releases.renew(active).id == active
    assert not refusals and said[-1]["log"].startswith(f"warning: the preview {preview} cannot be read: ")
