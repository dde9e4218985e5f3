"""W3C Trace Context: what is a trace, what is none, and which are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from lampyr.core.traceparent import SAMPLED, Context, Own, Sampling, parse, sampling

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-03", 3),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", 1),
        (f"cc-{TRACE}-{SPAN}-ff", 1),
        (f"cc-{TRACE}-{SPAN}-00-", 0),
    ],
)
def test_a_trace_is_read(text: str, flags: int) -> None:
    assert parse(text) == Context(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00_{TRACE}_{SPAN}_01",
        f"٠٠-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_none_is_none(text: str) -> None:
    assert parse(text) is None


@given(st.text("0123456789abcdef-", max_size=60))
def test_what_is_read_is_written_the_same(text: str) -> None:
    found = parse(text)
    assert found is None or text.startswith(("00-",)) is False or str(found) == text


@given(st.text("0123456789abcdef", min_size=24, max_size=24))
def test_the_ids_of_an_invocation_are_ids_and_differ(id: str) -> None:
    own = Own.of(id)
    assert Own.of(id) == own and len(set(own)) == 5
    for span in own[1:]:
        assert parse(str(Context(own.trace, span, SAMPLED))) == Context(own.trace, span, SAMPLED)


@pytest.mark.parametrize("ratio", [0.0, 0.001, 0.25, 0.5, 1.0])
def test_the_same_traces_are_kept_as_by_the_sdk(ratio: float) -> None:
    """Others in a trace who sample by the same ratio come to the same end."""
    theirs = TraceIdRatioBased(ratio)
    for number in range(2000):
        trace = Own.of(f"{number:024x}").trace
        kept = theirs.should_sample(None, int(trace, 16), "x").decision is Decision.RECORD_AND_SAMPLE
        assert Sampling(True, ratio).keeps(trace, None) == kept


def test_the_caller_decides_where_it_is_asked() -> None:
    kept, dropped = Context(TRACE, SPAN, 1), Context(TRACE, SPAN, 0)
    assert Sampling(True, 0.0).keeps(TRACE, kept) and not Sampling(True, 1.0).keeps(TRACE, dropped)
    assert not Sampling(False, 0.0).keeps(TRACE, kept) and Sampling(False, 1.0).keeps(TRACE, dropped)


@pytest.mark.parametrize(
    ("name", "argument", "meant"),
    [
        ("", "", Sampling(True, 1.0)),
        ("always_on", "", Sampling(False, 1.0)),
        ("always_off", "", Sampling(False, 0.0)),
        ("traceidratio", "0.25", Sampling(False, 0.25)),
        ("parentbased_always_on", "", Sampling(True, 1.0)),
        ("parentbased_always_off", "", Sampling(True, 0.0)),
        ("parentbased_traceidratio", "0.5", Sampling(True, 0.5)),
        ("parentbased_traceidratio", "", Sampling(True, 1.0)),
        ("traceidratio", "2", None),
        ("traceidratio", "half", None),
        ("traceidratio", "nan", None),
        ("jaeger_remote", "", None),
    ],
)
def test_the_variables_that_everybody_has(name: str, argument: str, meant: Sampling | None) -> None:
    assert sampling(name, argument) == meant
