"""docs/tracing.md: its tables are those of the spans that are sent."""

from __future__ import annotations

import re
from pathlib import Path

from lampyr.control import otel
from lampyr.control.otel import MOST_ROWS
from lampyr.control.spans import Span, Spans
from lampyr.core.traceparent import Sampling
from lampyr.ledger.records import Closed, Origin, Spent
from lampyr.ledger.tally import Tally

PAGE = (Path(__file__).parents[2] / "docs/tracing.md").read_text()
ORIGIN = Origin("/api/chat", "d", "here")


def spans() -> list[Span]:
    row = Closed(f"{1:024x}", ORIGIN.key, 500, True, "error", 1.0, 1.0, 1.0, 1, 1, 0.1, 1, 1)
    call = Spent(f"{2:024x}", row.id, "/api/chat", "openai", "gpt", 1, 1, 0.0, False)
    return list(Spans(Sampling()).of(Tally(closed=[row], settled=[call]), {ORIGIN.key: ORIGIN}))


def table(heading: str) -> list[tuple[str, str]]:
    """The first two cells of each row."""
    rows = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [(cells[1].strip(), cells[2].strip()) for cells in (row.split("|") for row in rows)]


def test_the_spans_are_those_that_are_sent() -> None:
    sent = [(one.name, one.kind) for one in spans()]
    written = table("span")
    assert [kind for _, kind in written] == [kind for _, kind in sent]
    for (name, _), (said, _) in zip(sent, written, strict=True):
        assert f"`{name.partition(' ')[0]}`" in said


def test_every_attribute_is_in_the_table() -> None:
    sent = {name for one in spans() for name in one.attributes} | {"error.type"}
    assert {name for cell, _ in table("attribute") for name in re.findall(r"`([^`]+)`", cell)} == sent


def test_the_variables_are_those_that_are_read() -> None:
    written = {name for cell, _ in table("variable") for name in re.findall(r"`(OTEL_\w+)`", cell)}
    read = set(re.findall(r'"(OTEL_\w+)"', Path(otel.__file__).read_text()))
    assert read == written - {"OTEL_EXPORTER_OTLP_HEADERS"}  # and more, by the exporter itself
    assert f"{MOST_ROWS:,} invocations" in PAGE
