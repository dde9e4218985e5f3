"""Inline script metadata (PEP 723): the dependencies a route file names for itself."""

from __future__ import annotations

import json
import re

from lampyr import tomltext
from lampyr.types import Metadata

_START = re.compile(r"# /// (?P<type>[a-zA-Z0-9-]+)\s*")


class MetadataError(ValueError):
    """The block is malformed: `line` (1-based) and what would be right."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read(text: str) -> Metadata | None:
    """The metadata of a file, None where it carries none. Raises MetadataError."""
    blocks = list(_blocks(text.splitlines()))
    if len(blocks) > 1:
        raise MetadataError("a file may have one block of script metadata, and this is the second", blocks[1][0])
    for line, content in blocks:
        return _parse(line, content)
    return None


def _blocks(rows: list[str]) -> list[tuple[int, list[str]]]:
    found = []
    index = 0
    while index < len(rows):
        start = _START.fullmatch(rows[index])
        index += 1
        if not start:
            continue
        line, content = index, []
        while index < len(rows) and (rows[index] == "#" or rows[index].startswith("# ")):
            content.append(rows[index][2:])
            index += 1
        # The last `# ///` closes: one inside the block is content (PEP 723).
        closing = [at for at, row in enumerate(content) if row.rstrip() == "///"]
        if start["type"] != "script":
            continue
        if not closing:
            raise MetadataError("the block of script metadata is not closed", line)
        found.append((line, content[: closing[-1]]))
    return found


def _parse(line: int, content: list[str]) -> Metadata:
    text = "\n".join(content)
    try:
        data = tomltext.parse(text)
    except tomltext.TomlError as error:
        raise MetadataError(f"the script metadata is not valid TOML: {error}", line + error.line) from None
    dependencies, requires = data.get("dependencies"), data.get("requires-python")
    listed = isinstance(dependencies, list) and all(isinstance(item, str) for item in dependencies)
    if dependencies is not None and not listed:
        at = line + (tomltext.line_of(text, ("dependencies",)) or 0)
        raise MetadataError('dependencies of the script metadata must be a list of texts, such as ["httpx2"]', at)
    if requires is not None and not isinstance(requires, str):
        at = line + (tomltext.line_of(text, ("requires-python",)) or 0)
        raise MetadataError('requires-python of the script metadata must be a text, such as ">=3.11"', at)
    tool = data.get("tool")
    uv = tool.get("uv") if isinstance(tool, dict) else None
    return Metadata(
        dependencies=tuple(dependencies) if dependencies is not None else None,
        requires_python=requires,
        line=line,
        uv=json.dumps(uv, sort_keys=True, default=str) if uv else "",
    )
