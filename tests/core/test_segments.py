"""What the name of a folder means, and which names are malformed."""

from __future__ import annotations

import pytest

from lampyr.core.segments import Kind, Segment, is_private, parse, public_name


@pytest.mark.parametrize(
    ("folder", "kind", "text"),
    [
        ("chat", Kind.STATIC, "chat"),
        ("robots.txt", Kind.STATIC, "robots.txt"),
        ("%5Fname", Kind.STATIC, "_name"),
        ("%5fname", Kind.STATIC, "_name"),
        ("a%5Fb", Kind.STATIC, "a%5Fb"),
        ("Foo_(bar)", Kind.STATIC, "Foo_(bar)"),
        ("[id]", Kind.PARAM, "id"),
        ("[user-id]", Kind.PARAM, "user-id"),
        ("[größe]", Kind.PARAM, "größe"),
        ("[...all]", Kind.CATCH_ALL, "all"),
        ("[[...all]]", Kind.OPTIONAL, "all"),
        ("(group)", Kind.GROUP, "group"),
    ],
)
def test_a_folder_means(folder: str, kind: Kind, text: str) -> None:
    assert parse(folder) == Segment(kind, text)


@pytest.mark.parametrize(
    "folder",
    ["[", "]", "[]", "[id", "id]", "a[id]", "[id]b", "[a][b]", "[[id]]", "[[]]", "[...]", "[[...]]", "[..all]",
     "[....all]", "[.id]", "[…all]", "[[...all]", "[...all]]", "[[all...]]", "[[[id]]]", "[id?]", "[ id]", "[id ]",
     "[-]", "()", "(group", "group)", "(.)photo", "caf\udce9"],
)  # fmt: skip
def test_a_malformed_folder_is_named(folder: str) -> None:
    with pytest.raises(ValueError):
        parse(folder)


def test_private_folders_begin_with_an_underscore() -> None:
    assert is_private("_lib") and is_private("__pycache__") and not is_private("%5Flib")


def test_the_public_name_leaves_groups_out_and_resolves_underscores() -> None:
    assert public_name(("(a)", "%5Fx", "[id]", "(b)", "[[...rest]]")) == "/_x/[id]/[[...rest]]"
    assert public_name(("(a)",)) == public_name(()) == "/"
