"""Variables in the values of .env files: $NAME, ${NAME}, ${NAME:-default}, ${NAME-default}; \\$ is a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_TOKEN = re.compile(r"\\\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?=\}|:?-)|\$([A-Za-z_][A-Za-z0-9_]*)")
_DEEPEST = 50

Find = Callable[[str], str | None]


class LoopError(ValueError):
    """Variables that refer to each other in a circle; `names` in the order in which they do."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(" → ".join(names))
        self.names = names


def expand_all(raw: Mapping[str, str], given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, None]]:
    """Expand every value of `raw` against all of them and `given` (which is taken as it stands).

    Returns the values, and the names of those that refer to a variable which is nowhere. Raises LoopError.
    """
    done: dict[str, str] = {}
    dangling: dict[str, None] = {}

    def value_of(name: str, chain: tuple[str, ...]) -> str:
        if name in done:
            return done[name]
        if name in chain or len(chain) >= _DEEPEST:
            raise LoopError((*chain[chain.index(name) :], name) if name in chain else chain)
        inner = (*chain, name)

        def find(wanted: str) -> str | None:
            if wanted in raw:
                return value_of(wanted, inner)
            return given.get(wanted)

        done[name] = expand(raw[name], find, lambda: dangling.setdefault(name))
        return done[name]

    for name in raw:
        value_of(name, ())
    return done, dangling


def expand(value: str, find: Find, missing: Callable[[], object]) -> str:
    """`value` with its variables replaced. One that is unset and has no default is empty, and `missing` is called."""
    text, at = [], 0
    while token := _TOKEN.search(value, at):
        text.append(value[at : token.start()])
        at = token.end()
        if token[0] == "\\$":
            text.append("$")
            continue
        default: str | None = None
        empty_counts = False
        if token[1]:
            end = _closing(value, at)
            if end is None:  # a brace that nobody closes is text
                text.append(token[0])
                continue
            inside, at = value[at:end], end + 1
            empty_counts = inside.startswith(":-")
            if inside:
                default = inside[2:] if empty_counts else inside[1:]
        found = find(token[1] or token[2])
        if found is None or (found == "" and empty_counts):
            if default is not None:
                found = expand(default, find, missing)
            elif found is None:
                missing()
        text.append(found or "")
    return "".join(text) + value[at:]


def _closing(value: str, at: int) -> int | None:
    """Where the brace is that closes the one opened before `at`."""
    depth = 1
    while at < len(value):
        if value[at] == "\\":
            at += 1
        elif value.startswith("${", at):
            depth += 1
        elif value[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return None
