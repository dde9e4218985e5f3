"""Route files that cannot stand beside each other, or beside public/ (SPEC 1)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lampyr.core.segments import RESERVED, SCHEME, Kind, Segment, in_url, parse, public_name


def malformed(parts: Sequence[str]) -> tuple[str, str] | None:
    """What is wrong with the folders of one route file taken alone, and a hint; None where nothing is."""
    for part in parts:
        try:
            parse(part)
        except ValueError as error:
            return f"{part!r} is not a segment of a route: {error}", f"a folder is called {SCHEME}"
    segments = in_url(parts)
    for segment in segments[:-1]:
        if segment.kind in (Kind.CATCH_ALL, Kind.OPTIONAL):
            return f"the catch-all {segment} is not the last segment of its route", f"nothing can follow {segment}"
    if segments and segments[0] == Segment(Kind.STATIC, RESERVED):
        return f"/{RESERVED} is Lampyr's own", "give the folder another name"
    return _repeated([segment for segment in segments if segment.kind is not Kind.STATIC])


def _repeated(dynamic: Sequence[Segment]) -> tuple[str, str] | None:
    seen: dict[str, str] = {}
    for _, name in dynamic:
        word = re.sub(r"\W", "", name)
        if seen.get(word) == name:
            return f'the parameter "{name}" is used twice in one route', "give each parameter a name of its own"
        if word in seen:
            message = (
                f'the parameters "{seen[word]}" and "{name}" differ only in characters that are not letters or digits'
            )
            return message, "give each parameter a name of its own"
        seen[word] = name
    return None


def between(files: Mapping[str, Sequence[str]]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Conflicts between route files (name of the file → its folders): the files, what is wrong, and a hint."""
    yield from _same_path(files)
    yield from _different_names(files)


def _same_path(files: Mapping[str, Sequence[str]]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Files whose URLs are the same but for the names of parameters that are last: equal rank."""
    groups: dict[tuple[Segment, ...], list[str]] = {}
    for file, parts in files.items():
        groups.setdefault(in_url(parts), []).append(file)
    for group in groups.values():
        if len(group) > 1:
            route = public_name(files[group[0]])
            yield tuple(group), f"{_listed(group)} answer the same path {route}", "keep one of them, or move the other"


def _different_names(files: Mapping[str, Sequence[str]]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Parameters that stand at the same place of the URL under different names."""
    places: dict[tuple[object, ...], dict[str, list[str]]] = {}
    for file, parts in files.items():
        place: tuple[object, ...] = ()
        for kind, text in in_url(parts):
            if kind is Kind.STATIC:
                place = (*place, text)
                continue
            # [...all] and [[...all]] share a place: both say what the rest of the path is called.
            place = (*place, Kind.CATCH_ALL if kind is Kind.OPTIONAL else kind)
            places.setdefault(place, {}).setdefault(text, []).append(file)
    for named in places.values():
        if len(named) > 1:
            group = tuple(sorted({file for files_of_name in named.values() for file in files_of_name}))
            names = " and ".join(f'"{name}"' for name in named)
            yield group, f"{_listed(group)} call one parameter by different names: {names}", "use one name for it"


def in_public(public: Path, files: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Route files at whose path a static file is: the route file and the name of the static file inside `public`.

    What begins with a dot is never served (SPEC 3), `.well-known` neither, and so is in nobody's way.
    """
    for file, parts in files.items():
        segments = in_url(parts)
        names = [text for kind, text in segments if kind is Kind.STATIC]
        if len(names) < len(segments) or any(name.startswith(".") for name in names):
            continue
        for name in ("/".join(names), "/".join([*names, "index.html"])):
            if name and (public / name).is_file():
                yield file, name


def never_served(public: Path) -> tuple[str, ...]:
    """The files inside `public` at paths that are Lampyr's own, from `public` on."""
    found = (Path(folder, name) for folder, _, names in os.walk(public / RESERVED) for name in names)
    return tuple(sorted(file.relative_to(public).as_posix() for file in found))


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:-1]) + " and " + files[-1]
