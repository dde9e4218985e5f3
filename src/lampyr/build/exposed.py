"""What browsers would see of secrets: values of the project's own, and what looks like a key of a known provider."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import brotli
from ahocorasick_rs import BytesAhoCorasick

from lampyr.core import masks
from lampyr.types import Problem

# Each begins where a word begins, and is as long as the provider's keys are: "sk-fading-circle" is a class of CSS.
_PROVIDER_KEYS = {
    "an Anthropic key": rb"sk-ant-[A-Za-z0-9_-]{20,}",
    "an OpenAI key": rb"sk-(?!ant-)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}",
    "an xAI key": rb"xai-[A-Za-z0-9]{60,}",
    "a Groq key": rb"gsk_[A-Za-z0-9]{40,}",
    "a Hugging Face token": rb"hf_[A-Za-z0-9]{30,}",
    "a Replicate token": rb"r8_[A-Za-z0-9]{30,}",
    "a Perplexity key": rb"pplx-[A-Za-z0-9]{40,}",
    "an NVIDIA key": rb"nvapi-[A-Za-z0-9_-]{40,}",
    "a Stripe key": rb"[rs]k_live_[A-Za-z0-9]{16,}",
    "an AWS access key": rb"A(?:K|S)IA[0-9A-Z]{16}(?![0-9A-Z])",
    "a GitHub token": rb"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}",
    "a GitLab token": rb"glpat-[A-Za-z0-9_-]{20,}",
    "a Google API key": rb"AIza[0-9A-Za-z_-]{35}",
    "a Slack token": rb"xox[abeoprs]-[0-9A-Za-z-]{10,}",
    "a private key": rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
}
_KEY = re.compile(rb"(?<![A-Za-z0-9_-])(?:" + b"|".join(b"(%s)" % one for one in _PROVIDER_KEYS.values()) + rb")")
# Where tools put a source map that has no file of its own.
_DATA_URL = re.compile(rb"data:[\w/+.-]*(?:;[\w=-]+)*;base64,((?:[A-Za-z0-9+/]{4}){4,}(?:[A-Za-z0-9+/]{2,3})?)")
# What a compressed file may grow to; what is larger is looked at so far.
MAX_BYTES = 64 * 1024 * 1024
# What was found in a file, of which time, size and place, with which secrets: `dev` looks at every save.
_SEEN: dict[str, tuple[tuple[int, int, int, int], str | None]] = {}
_HINT = "browsers may read it: take it out, and let a function use it instead"


def looks_like(data: bytes) -> str | None:
    """Whose key seems to be in `data`, in words."""
    found = _KEY.search(data)
    return None if found is None else list(_PROVIDER_KEYS)[(found.lastindex or 1) - 1]


class Look:
    """Looks for `secrets` (name → value) in files."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._kind = hash(tuple(sorted(secrets.items())))
        self._names = [(name, one) for name, value in secrets.items() for one in masks.encodings(value)]
        self._automaton = BytesAhoCorasick([one for _, one in self._names]) if self._names else None

    def problems(self, root: Path, public: Path) -> Iterator[Problem]:
        """One for each file below `public` that holds a secret or a provider's key."""
        for folder, _, files in os.walk(public):
            for name in sorted(files):
                path = Path(folder, name)
                what = self._in(path)
                if what is not None:
                    file = path.relative_to(root).as_posix()
                    yield Problem(file=file, line=None, message=f"the file holds {what}", hint=_HINT)

    def _in(self, path: Path) -> str | None:
        try:
            stat = path.stat()
        except OSError:
            return None
        kind = (stat.st_mtime_ns, stat.st_size, stat.st_ino, self._kind)
        seen = _SEEN.get(str(path))
        if seen is None or seen[0] != kind:
            seen = _SEEN[str(path)] = kind, next(filter(None, map(self._found, _contents(path))), None)
        return seen[1]

    def _found(self, data: bytes) -> str | None:
        hit = self._automaton.find_matches_as_indexes(data) if self._automaton is not None else None
        if hit:
            return f"the value of the secret {self._names[hit[0][0]][0]}"
        kind = looks_like(data)
        return f"what looks like {kind}" if kind else None


def _contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what is in its data URLs and, where it is compressed, in that."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES)
    yield data
    for found in _DATA_URL.finditer(data):
        yield base64.b64decode(found[1] + b"=" * (-len(found[1]) % 4))
    try:
        if data[:2] == b"\x1f\x8b":
            yield gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES)
        elif path.suffix == ".br":
            yield brotli.Decompressor().process(data, output_buffer_limit=MAX_BYTES)
        elif data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for member in archive.infolist():
                    yield archive.open(member).read(MAX_BYTES)
    except (OSError, EOFError, zlib.error, brotli.error, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        pass  # it is damaged or not what its name says: nothing more to see
