"""README.md shows how to begin first, then a picture of the page, then the route file that answers it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ROUTE = ROOT / "src/lampyr/templates/chat/app/api/chat/route.py"


def test_demo_test_picture_and_route_come_in_this_order() -> None:
    places = [README.index(text) for text in ("./do demo", "./do test", "](docs/img/chat.png)", "```python\n")]
    assert places == sorted(places)


def test_the_route_in_it_is_the_file_of_the_template_and_fits_on_a_card() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert shown == ROUTE.read_text()
    assert len(shown.splitlines()) <= 20


def test_everything_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/img/chat.png" in links and "SPECIFICATION.md" in links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
