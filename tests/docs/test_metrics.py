"""docs/metrics.md: every metric is in its table with its labels, and its lines work as they are printed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from textwrap import dedent

from serving import Serve, until

from lampyr.console.metrics import Figures
from lampyr.console.token import FILE
from lampyr.core.lifecycle import LIFE
from lampyr.ledger.ever import TIMES, Ever, Spread
from lampyr.ledger.tally import SUMS

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
BLOCKS = [dedent(block) for block in re.findall(r"(?:^ {4}.*\n)+", PAGE, re.MULTILINE)]


def test_every_metric_is_in_the_table_with_its_labels() -> None:
    facts = {"function": "/a", "runtime": "edge", "deployment": "", "snapshot": "ready", "snapshot_mb": 1, "waiting": 0}
    counted = Ever(
        {("/a", "rate_limited", 429): 1},
        {("/a", "openai"): dict.fromkeys(SUMS, 1.0)},
        {("/a", what): Spread.of([1]) for what in TIMES},
    )
    shown = {}
    for family in Figures({"functions": [{**facts, "instances": []}]}, counted).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for one in family.samples for label in one.labels}
        shown[name] = labels - {"function", "runtime", "le"}
    rows = re.findall(r"^\| `(lampyr_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == shown


def test_the_states_are_those_of_an_instance() -> None:
    (said,) = re.findall(r"`lampyr_instances` \|.*now: (.*) \|", PAGE)
    not_shown = {"ended", "parked"}  # what is parked is none yet
    assert set(re.findall(r"`(\w+)`", said)) == set(LIFE.values()) - not_shown | {"starting"}


def test_the_lines_work_as_they_are_printed(serve: Serve) -> None:
    settings, scrape, by_hand, questions = BLOCKS
    port = tomllib.loads(settings)["server"]["console_port"]
    assert f"127.0.0.1:{port}" in scrape and f"/.lampyr/{FILE}" in scrape
    project = {"app/api/route.py": "def GET(): return 'hello'\n", "lampyr.toml": settings.replace(str(port), "0")}
    server = serve(project)
    real = server.log(r"console http://127\.0\.0\.1:(\d+)/")[1]
    assert server.get("/api").status == 200
    command = by_hand.replace(str(port), real)

    def figures() -> str:
        text = subprocess.check_output(["sh", "-c", command], cwd=server.root, text=True)
        return text if "} 1.0" in text.partition("requests_total{")[2].partition("\n")[0] else ""

    text = until(figures, "a row")
    for name in re.findall(r"lampyr_\w+", questions):
        assert re.search(rf"^{name}\b|^# TYPE {name} ", text, re.MULTILINE), name
