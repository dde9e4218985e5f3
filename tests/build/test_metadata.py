"""Inline script metadata (PEP 723)."""

from __future__ import annotations

import pytest

from lampyr.build.metadata import MetadataError, read
from lampyr.types import Metadata

CODE = "\nimport x\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("# script\n# dependencies = []\n", None),
        ("# /// other\n# dependencies = 5\n# ///\n", None),
        (" # /// script\n # dependencies = 5\n # ///\n", None),
        ("# /// script\n# ///\n", Metadata(None, None)),
        ('# /// script\n# dependencies = ["a", "b>=1"]\n# ///\n', Metadata(("a", "b>=1"), None)),
        ('# /// script\n# requires-python = ">=3.11"\n#\n# [tool.x]\n# y = 1\n# ///\n', Metadata(None, ">=3.11")),
        ('#!/usr/bin/python\n\n# /// script\n# dependencies = [\n#   "a", # why\n# ]\n# ///', Metadata(("a",), None)),
        ('# /// script\n# dependencies = ["a"]\n# ///\n# /// x\n# y\n', Metadata(("a",), None)),
    ],
)
def test_metadata_is(text: str, found: Metadata | None) -> None:
    said = read(text + CODE)
    assert (said and said[:2]) == (found and found[:2])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('"""doc"""\n# /// script\n# dependencies = ["a"]\n', 2, "not closed"),
        ("# /// script\n# x = 1\n# dependencies = [\n# ///\n", 3, "not valid TOML"),
        ("# /// script\n# dependencies = 'a'\n# ///\n", 2, "list of texts"),
        ("\n# /// script\n#\n# dependencies = [1]\n# ///\n", 4, "list of texts"),
        ("# /// script\n# requires-python = 3.11\n# ///\n", 2, "requires-python"),
        ("# /// script\n# ///\n\n# /// script\n# ///\n", 4, "second"),
    ],
)
def test_malformed_metadata_is_named_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(MetadataError, match=message) as caught:
        read(text + CODE)
    assert caught.value.line == line
