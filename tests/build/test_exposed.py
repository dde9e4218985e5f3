"""Secrets in what browsers may read: files in public/, also compressed, and PUBLIC_ values (SPEC 4)."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from pathlib import Path

import brotli
import pytest

from lampyr import config
from lampyr.build.environment import read
from lampyr.build.exposed import looks_like
from lampyr.build.scan import scan
from lampyr.types import Secret

SECRET = "correct-horse-battery"
# Put together here, so that this file itself holds nothing that looks like a key.
KEYS = {
    "an OpenAI key": "sk-" + "proj-" + "a1B2c3D4" * 5,
    "an Anthropic key": "sk-" + "ant-api03-" + "a1B2c3D4" * 5,
    "an xAI key": "xai" + "-" + "a1B2c3D4" * 10,
    "a Groq key": "gsk" + "_" + "a1B2c3D4" * 6,
    "a Hugging Face token": "hf" + "_" + "a1B2c3D4" * 4,
    "a Replicate token": "r8" + "_" + "a1B2c3D4" * 5,
    "a Perplexity key": "pplx" + "-" + "a1B2c3D4" * 6,
    "an NVIDIA key": "nvapi" + "-" + "a1B2c3D4" * 8,
    "a Stripe key": "sk" + "_live_" + "a1B2c3D4" * 3,
    "a GitLab token": "glpat" + "-" + "a1B2c3D4e5F6g7H8i9J0",
    "an AWS access key": "AKIA" + "IOSFODNN7EXAMPLE",
    "a GitHub token": "ghp" + "_" + "a1B2c3D4e" * 4,
    "a Google API key": "AIza" + "a1B2c3D" * 5,
    "a Slack token": "xoxb" + "-123456789012-abcdef",
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.js", data)
    return out.getvalue()


def errors(root: Path, files: dict[str, bytes], env: str = "") -> list[tuple[str, str]]:
    (root / "app").mkdir()
    (root / "app/route.py").write_text("def GET(): return 1\n")
    (root / ".env.local").write_text(f"MASTER={SECRET}\n")
    (root / ".env").write_text(env)
    for name, data in files.items():
        path = root / "public" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    vault = {"KEPT": Secret("a-value-of-the-vault", None, 1)}
    judged = read(root, "production", {}, vault).judge(scan(root, config.load(root)))
    assert all(SECRET not in f"{one}" for one in judged.errors)
    return [(one.file, one.message) for one in judged.errors]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.js", f"let key = '{SECRET}'".encode()),
        ("deep/er/a.js.map", b"{" + base64.b64encode(SECRET.encode()) + b"}"),
        ("a.js.gz", gzip.compress(SECRET.encode())),
        ("a.js.br", brotli.compress(SECRET.encode())),
        ("a.zip", zipped(SECRET.encode())),
    ],
)
def test_a_file_that_holds_a_secret_is_an_error_that_names_it(tmp_path: Path, name: str, data: bytes) -> None:
    assert errors(tmp_path, {name: data, "fine.js": b"fine"}) == [
        (f"public/{name}", "the file holds the value of the secret MASTER")
    ]


def test_one_of_the_vault_as_well(tmp_path: Path) -> None:
    assert errors(tmp_path, {"a.js": b"a-value-of-the-vault"}) == [
        ("public/a.js", "the file holds the value of the secret KEPT")
    ]


@pytest.mark.parametrize("kind", KEYS)
def test_what_looks_like_the_key_of_a_provider(tmp_path: Path, kind: str) -> None:
    found = errors(tmp_path, {"a.js": f'x("{KEYS[kind]}")'.encode()}, f"PUBLIC_X={KEYS[kind]}\n")
    assert ("public/a.js", f"the file holds what looks like {kind}") in found
    assert (".env", f"PUBLIC_X holds what looks like {kind}, and browsers may see it") in found


def test_a_secret_in_a_source_map_inside_its_script(tmp_path: Path) -> None:
    inner = base64.b64encode(b'{"sourcesContent":["sk-' + KEYS["an OpenAI key"][3:].encode() + b'"]}')
    script = b"x()\n//# sourceMappingURL=data:application/json;charset=utf-8;base64," + inner + b"\n"
    assert errors(tmp_path, {"a.js": script}) == [("public/a.js", "the file holds what looks like an OpenAI key")]


@pytest.mark.parametrize(
    "text",
    ["sk-fading-circle-with-a-long-name", "task-0123456789012345678901234567890", "AKIA", "ghp_short", "PUBLIC KEY"],
)
def test_what_only_reminds_of_one(text: str) -> None:
    assert looks_like(text.encode()) is None


@pytest.mark.parametrize("data", [b"\x1f\x8bnot gzip", b"PK\x03\x04not zip", b"", b"\0" * 10_000])
def test_files_that_are_not_what_they_seem(tmp_path: Path, data: bytes) -> None:
    assert errors(tmp_path, {"a.br": data, "a.bin": data}) == []
