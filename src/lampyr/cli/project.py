"""`lampyr init`: a new project from a template."""

from __future__ import annotations

import shutil
from pathlib import Path
from shlex import quote

import click

from lampyr.cli import terminal
from lampyr.errors import ProjectError

TEMPLATES = Path(__file__).parent.parent / "templates"
NAMES = ("chat", "hello", "fastapi")

# A template's list for git has no dot, so that it does not act on the template itself.
GITIGNORE = Path("gitignore")


@click.command
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--template", type=click.Choice(NAMES), default="chat", show_default=True, help="What to start from.")
@click.option("--json", "as_json", is_flag=True, help="Print the path and the files as JSON.")
def init(folder: Path, template: str, as_json: bool) -> None:
    """Make a project in DIR that runs as it is.

    chat streams a small model on this machine to a page in the browser; hello is one function; fastapi is a FastAPI
    application. Nothing that is in DIR already is overwritten.
    """
    files = _files(TEMPLATES / template)
    _refuse_collisions(folder, files)
    _copy(TEMPLATES / template, folder, files)
    if as_json:
        names = sorted({*map(str, files), ".gitignore"})
        terminal.payload_json({"path": str(folder.resolve()), "template": template, "files": names})
    else:
        terminal.payload(str(folder.resolve()))
        _say_next_steps(folder)


def _files(template: Path) -> list[Path]:
    """The files of a template, relative to it, without what Python left there."""
    found = (path.relative_to(template) for path in sorted(template.rglob("*")) if path.is_file())
    return [path for path in found if "__pycache__" not in path.parts and path != GITIGNORE]


def _refuse_collisions(folder: Path, files: list[Path]) -> None:
    """Raise ProjectError where a file of the template, or a folder it needs, is taken."""
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise ProjectError(
            f"cannot make a project at {folder}: a file of that name is in the way", "name another folder"
        )
    if (folder / "src" / "app").is_dir():
        raise ProjectError(f"cannot make a project in {folder}: it has one already, in src/app", "name another folder")
    taken = [path for path in files if (folder / path).exists() or (folder / path).is_symlink()]
    taken += {
        parent
        for path in files
        for parent in path.parents
        if (folder / parent).exists() and not (folder / parent).is_dir()
    }
    if taken:
        names = ", ".join(map(str, taken[:5])) + (f" and {len(taken) - 5} more" if len(taken) > 5 else "")
        raise ProjectError(f"cannot make a project in {folder}: it has {names} already", "name another folder")


def _copy(template: Path, folder: Path, files: list[Path]) -> None:
    """Copy everything or nothing: what was made is taken away again where the rest cannot be written.

    Functions have user ids of their own. So whatever the umask is, they can read what was made.
    """
    made: list[Path] = []
    try:
        for path in files:
            _make_folder((folder / path).parent, made)
            made.append(folder / path)
            shutil.copyfile(template / path, folder / path)
            (folder / path).chmod(0o644)
        _ignore(folder / ".gitignore", (template / GITIGNORE).read_text().splitlines())
    except OSError as error:
        for path in reversed(made):
            _take_away(path)
        raise ProjectError(
            f"cannot make a project in {folder}: {error.filename or folder}: {error.strerror}",
            "name a folder that can be written to",
        ) from error


def _make_folder(folder: Path, made: list[Path]) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent, made)
        folder.mkdir()
        made.append(folder)
        folder.chmod(0o755)


def _take_away(path: Path) -> None:
    try:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:
        pass  # the first error is the one to report


def _ignore(gitignore: Path, wanted: list[str]) -> None:
    """Add what is missing to .gitignore, which may be there already."""
    text = gitignore.read_text() if gitignore.exists() else ""
    missing = [line for line in wanted if line not in text.splitlines()]
    if missing:
        start = text if not text or text.endswith("\n") else text + "\n"
        gitignore.write_text(start + "".join(f"{line}\n" for line in missing))


def _say_next_steps(folder: Path) -> None:
    terminal.note("\nNext:")
    if folder.resolve() != Path.cwd():
        terminal.note(f"  cd {quote(str(folder))}")
    terminal.note("  lampyr dev")
