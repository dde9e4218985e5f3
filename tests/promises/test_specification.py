"""SPECIFICATION.md: every promise names a test that exists, or says that it is pending."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "SPECIFICATION.md").read_text().splitlines()
PROMISES = [line for line in LINES if line.startswith("- ")]

# "- promise: pending", or "- promise: `tests/a/test_b.py::test_c` `tests/...`"
_PROMISE = re.compile(r"- \S.*: (?:pending|(?:`tests/[^`]+::[^`]+` ?)+)")
_TEST = re.compile(r"`(tests/[^`]+?\.py)::([^`]+)`")


@cache
def names_in(file: Path) -> frozenset[str]:
    """The names of the tests in a file, `Class::test` for those of a class, read from its syntax tree."""
    return frozenset(_tests(ast.parse(file.read_text()).body, ""))


def _tests(body: list[ast.stmt], prefix: str) -> list[str]:
    found: list[str] = []
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            found += _tests(node.body, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            found.append(prefix + node.name)
    return found


@pytest.mark.parametrize("line", PROMISES)
def test_a_promise_names_its_tests_or_is_pending(line: str) -> None:
    assert _PROMISE.fullmatch(line), "neither a test nor `pending` stands at its end"


@pytest.mark.parametrize(("file", "name"), sorted(set(_TEST.findall("\n".join(LINES)))))
def test_a_named_test_exists(file: str, name: str) -> None:
    assert (ROOT / file).is_file(), f"there is no {file}"
    assert name in names_in(ROOT / file), f"{file} has no {name}"


def test_no_promise_stands_there_twice() -> None:
    assert len(set(PROMISES)) == len(PROMISES)


def test_how_many_are_pending(capsys: pytest.CaptureFixture[str]) -> None:
    """Says it in every run, so that nobody takes a green run for a finished house."""
    pending = sum(line.endswith(": pending") for line in PROMISES)
    with capsys.disabled():
        print(
            f"\nSPECIFICATION.md: {len(PROMISES)} promises, {len(PROMISES) - pending} held by tests, {pending} pending"
        )
    assert PROMISES and pending < len(PROMISES)
