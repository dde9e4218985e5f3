"""Lines of keys in TOML documents."""

from __future__ import annotations

import tomllib

import pytest

from lampyr.tomltext import TomlError, line_of, parse

DOCUMENT = '''\
# a comment with [brackets] and key = 1
title = "x"

[ a . "b.c" ]  # spaced
plain = 1
"quoted key" = 2
dotted.inner.most = 3
array = [
  # port = 1
  "[server]",
  { deep = 1 },
]
text = """
[server]
port = 5
"""
inline = { one = 1, two = { three = 3 } }

[[list]]
name = "first"

[server]
port = 7
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("a", "b.c"), 4),
        (("a", "b.c", "plain"), 5),
        (("a", "b.c", "quoted key"), 6),
        (("a", "b.c", "dotted", "inner", "most"), 7),
        (("a", "b.c", "array"), 8),
        (("a", "b.c", "text"), 13),
        (("a", "b.c", "inline", "two", "three"), 17),
        (("a", "b.c", "missing"), 4),
        (("list", "name"), 20),
        (("server", "port"), 23),
        (("server",), 22),
        (("nowhere",), None),
    ],
)
def test_a_key_is_found_where_it_is_written(path: tuple[str, ...], line: int | None) -> None:
    tomllib.loads(DOCUMENT)
    assert line_of(DOCUMENT, path) == line


def test_the_search_ends_at_a_statement_that_is_too_long() -> None:
    text = "[a]\nx = '''\n" + "y = 1\n" * 3000 + "'''\nz = 1\n"
    assert line_of(text, ("a", "z")) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \n", 2),
        ("a = 1\n\nb = [1,\n2\n\n", 4),
        ("a = 1\na = 2", 2),
        ("[" * 2000, 1),
        ("a = " + "[" * 9999, 1),
    ],
)
def test_what_is_not_toml_has_a_line(text: str, line: int) -> None:
    with pytest.raises(TomlError) as caught:
        parse(text)
    assert caught.value.line == line and "line" not in str(caught.value)
