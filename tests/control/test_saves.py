"""Which functions a save makes anew: those that have loaded the file, or all where nobody can know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lampyr import config
from lampyr.build.scan import scan
from lampyr.control.saves import Saves

ROUTE = "def GET(): return 1\n"


class Place:
    """A project with /a and /b, both of which have been deployed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("app/a/route.py", "app/b/route.py", "only_a.py", "both.py", "else.py", "data.json"):
            self.write(name, ROUTE)
        self.saves = Saves(root)
        self.settle()
        self.saves.loaded("/a", [str(root / name) for name in ("app/a/route.py", "only_a.py", "both.py")])
        self.saves.loaded("/b", [str(root / name) for name in ("app/b/route.py", "both.py")])

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def settle(self) -> set[str]:
        """Deploy what is there; the routes that it makes anew."""
        project = scan(self.root, config.load(self.root))
        before = {one.route: self.saves.version(one) for one in project.functions}
        assert self.saves.look()
        self.saves.age(project)
        self.saves.tried()
        assert not self.saves.look()
        return {one.route for one in project.functions if self.saves.version(one) != before[one.route]}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("save", "anew"),
    [
        (lambda place: place.write("app/a/route.py", ROUTE * 2), {"/a"}),
        (lambda place: place.write("only_a.py", ROUTE * 2), {"/a"}),
        (lambda place: place.write("both.py", ROUTE * 2), {"/a", "/b"}),
        (lambda place: place.write("else.py", ROUTE * 2), {"/a", "/b"}),  # imported later, or by another process
        (lambda place: place.write("data.json", "{}"), {"/a", "/b"}),  # whoever has read it
        (lambda place: place.write("new.py", ROUTE), {"/a", "/b"}),  # it may be what an import finds now
        (lambda place: (place.root / "only_a.py").unlink(), {"/a", "/b"}),
        (lambda place: place.write("public/page.html", "<p>"), set()),
        (lambda place: place.saves.loaded("/a", None) or place.write("app/b/route.py", ROUTE * 2), {"/a", "/b"}),
        (lambda place: place.saves.forget(), {"/a", "/b"}),
    ],
)
def test_whom_a_save_makes_anew(place: Place, save: Callable[[Place], object], anew: set[str]) -> None:
    save(place)
    assert place.settle() == anew
