"""`lampyr secrets`: what is in the vault, without ever showing a value."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, project_in, state_in, state_option, vault_keys
from lampyr.errors import LampyrError, UsageError, VaultError

if TYPE_CHECKING:
    from lampyr.vault.acts import Grant, Row
    from lampyr.vault.place import Place

ENVIRONMENTS = ("development", "preview", "production")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
env_option = click.option(
    "--env",
    "environments",
    type=click.Choice(ENVIRONMENTS),
    multiple=True,
    help="For this environment only; may be repeated.  [default: all three]",
)


def _grants(command: Callable[..., Any]) -> Callable[..., Any]:
    only = click.option("--only", metavar="ROUTE", multiple=True, help="For this function only; may be repeated.")
    everyone = click.option("--everyone", is_flag=True, help="For all functions again.")
    return only(everyone(command))


@click.group(short_help="The vault: values that nobody can read back.")
def secrets() -> None:
    """The vault: values that functions get and nobody can read back.

    `dev` uses the environment development, `start` production.
    """


@secrets.command(name="set")
@click.argument("words", nargs=-1, metavar="NAME [DIR]")
@env_option
@_grants
@state_option
@json_option
def set_secret(
    words: tuple[str, ...],
    environments: tuple[str, ...],
    only: tuple[str, ...],
    everyone: bool,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Keep the secret NAME. Its value comes from stdin or a prompt, never from the command line."""
    from lampyr.vault import acts

    name, folder = _name_and_folder(words)
    acts.check_name(name)
    where, grant = _place(folder, state_dir), _grant(only, everyone)
    wanted = environments or ENVIRONMENTS
    row = acts.put(where, vault_keys(), {name: _value(name)}, wanted, grant)[0]
    _warn_of_routes(folder, only)
    if as_json:
        terminal.payload_json(_entry(row))
    else:
        terminal.note(f"{name} is in the vault for {_told(row)}")
        _say_when(where, wanted)


@secrets.command(name="list")
@folder_argument
@env_option
@state_option
@json_option
def list_secrets(folder: Path, environments: tuple[str, ...], state_dir: Path | None, as_json: bool) -> None:
    """Show which secrets there are, and who may have them; never a value."""
    from lampyr.vault import acts

    found = acts.rows(_place(folder, state_dir), vault_keys(), environments or ENVIRONMENTS)
    if as_json:
        terminal.payload_json([_entry(one) for one in found])
    for row in () if as_json else found:
        who = "all functions" if row.functions is None else ", ".join(row.functions)
        terminal.payload(f"{row.name:<32} {','.join(row.environments):<32} v{row.version:<4} {row.updated_at}  {who}")
    if not found:
        terminal.note("the vault is empty; `lampyr secrets set NAME` puts something in")


@secrets.command
@click.argument("name", metavar="NAME")
@folder_argument
@env_option
@state_option
@json_option
def remove(name: str, folder: Path, environments: tuple[str, ...], state_dir: Path | None, as_json: bool) -> None:
    """Forget the secret NAME."""
    from lampyr.vault import acts

    gone = acts.remove(_place(folder, state_dir), vault_keys(), name, environments or ENVIRONMENTS)
    if as_json:
        terminal.payload_json({"name": name, "environments": gone})
    else:
        terminal.note(f"{name} is gone from {', '.join(gone)}")


@secrets.command(name="import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@folder_argument
@env_option
@_grants
@state_option
@json_option
def import_secrets(
    file: Path,
    folder: Path,
    environments: tuple[str, ...],
    only: tuple[str, ...],
    everyone: bool,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Keep every value of a .env file: `lampyr secrets import .env.local`.

    Names for browsers (PUBLIC_...) stay out. Of .env.production.local only production gets the values, of
    .env.development.local only development.
    """
    from lampyr.build import environment
    from lampyr.vault import acts

    where = _place(folder, state_dir)
    values = environment.read_file(file, os.environ)
    kept = {name: value for name, value in values.items() if value and not name.startswith(("PUBLIC_", "LAMPYR_"))}
    for name, value in kept.items():
        _warn_of_length(name, value)
    wanted = environments or tuple(one for one in ENVIRONMENTS if f".{one}" in file.name) or ENVIRONMENTS
    done = acts.put(where, vault_keys(), kept, wanted, _grant(only, everyone), "import")
    skipped = sorted(values.keys() - kept.keys())
    _warn_of_routes(folder, only)
    if as_json:
        terminal.payload_json({"imported": [_entry(one) for one in done], "skipped": skipped})
        return
    for row in done:
        terminal.note(f"{row.name} is in the vault for {_told(row)}")
    if done:
        _say_when(where, wanted)
    if skipped:
        terminal.note(f"not taken (empty, or no secrets): {', '.join(skipped)}")
    if done:
        terminal.note(f"hint: the vault wins over {file}; delete what it now keeps from there")


@secrets.command
@folder_argument
@click.option("--passphrase", is_flag=True, help="To a new passphrase, from a prompt or stdin.")
@click.option("--key-file", is_flag=True, help="To a new key in the key file.  [default]")
@click.option("--stdin", "from_stdin", is_flag=True, help="To the key or passphrase on stdin, for LAMPYR_MASTER_KEY.")
@click.option("--accept-older", is_flag=True, help="Go on with an older copy that was put back on purpose.")
@state_option
@json_option
def rotate(
    folder: Path,
    passphrase: bool,
    key_file: bool,
    from_stdin: bool,
    accept_older: bool,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Give the vault a new master key, also while a server is running: it is told.

    Without an option that is a new key in the key file.
    """
    from lampyr.vault import acts, master, place

    if passphrase + key_file + from_stdin > 1:
        raise UsageError("--passphrase, --key-file and --stdin exclude each other", "choose one")
    keys = vault_keys()
    if keys.given and not (passphrase or key_file or from_stdin):
        message = f"the master key is in {place.VARIABLE}, which this command cannot change"
        raise UsageError(message, "--stdin takes the new one from stdin, --key-file moves it to a file")
    text = _new_phrase() if passphrase else _from_stdin("the new master key") if from_stdin else None
    where = _place(folder, state_dir)
    unheard = _announce(where, text)
    new = acts.rotate(where, keys, text, accept_older=accept_older)
    kind = "passphrase" if new.kind == master.PASSPHRASE else "key" if text is not None else "key file"
    if as_json:
        terminal.payload_json({"master": kind})
    else:
        terminal.note("the vault has a new " + (f"key in {where.key}" if text is None else kind))
    if keys.given:
        now = "must not be set any more" if text is None else "must hold the new one from now on"
        terminal.note(f"hint: {place.VARIABLE} {now}")
    elif text is not None:
        terminal.note(f"hint: a server needs it in {place.VARIABLE} when it is started, or typed in a terminal")
    if unheard is not None:
        terminal.note(f"lampyr: warning: the running server goes on with what it knows: {unheard.message}")
        terminal.note("hint: restart it with the new master key, and it sees later changes of the vault")


@secrets.command
@folder_argument
@click.option("--verify", is_flag=True, help="Check that no entry was changed, left out or moved.")
@state_option
@json_option
def audit(folder: Path, verify: bool, state_dir: Path | None, as_json: bool) -> None:
    """Show who did what to which secret, and when."""
    from lampyr.vault import acts
    from lampyr.vault import audit as trail

    where = _place(folder, state_dir)
    if verify:
        count = acts.verify(where, vault_keys())
        if as_json:
            terminal.payload_json({"ok": True, "entries": count})
        else:
            terminal.payload(f"{count} entries, none changed and none missing")
        return
    entries = [entry for _, entry in trail.follow(where)]
    if as_json:
        terminal.payload_json(entries)
    for one in () if as_json else entries:
        about = (",".join(one.get(names) or ()) for names in ("environments", "functions"))
        what = " ".join(filter(None, (one["action"], one["name"], *about)))
        terminal.payload(f"{one['time']}  {one['who']:<12} {'' if one['allowed'] else 'REFUSED '}{what}")


# --- where, with which key, what


def _place(folder: Path, state_dir: Path | None) -> Place:
    from lampyr.build.scan import app_folder
    from lampyr.vault.place import Place

    root = project_in(folder)
    app_folder(root)  # a vault in a folder that is no project would be found by nobody
    return Place(state_in(root, state_dir))


def _announce(where: Place, text: str | None) -> LampyrError | None:
    """Tell the vault process of a running server which master key comes next; why it could not be told."""
    from lampyr.control import door

    try:
        door.ask(where.state, "vault", then={"master": text})
    except door.Nobody:
        return None
    except LampyrError as error:
        return error
    return None


def _say_when(where: Place, environments: tuple[str, ...]) -> None:
    """When a server has what has just been kept for `environments` (docs/secrets.md)."""
    from lampyr.control import door

    try:
        mode = door.ask(where.state, "card")["mode"]
    except door.Nobody:
        terminal.note("no server is running: the next start has it")
        return
    except LampyrError as error:
        terminal.note(f"lampyr: warning: whether the running server has it is not known: {error.message}")
        terminal.note(f"hint: {error.hint}")
        return
    if mode in environments:
        whose = "functions"
    elif mode == "production" and "preview" in environments:
        whose = "previews"
    else:
        terminal.note(f"the running server does not use it: its environment is {mode}")
        return
    terminal.note(f"the running server imports its {whose} with it now, and these go on as they are until then")


def _name_and_folder(words: tuple[str, ...]) -> tuple[str, Path]:
    """NAME and DIR. What else stands there may well be a value, and is not repeated."""
    if not words:
        raise UsageError("which secret?", "lampyr secrets set NAME, with the value on stdin or at the prompt")
    folder = Path(words[1]) if len(words) > 1 else Path()
    if len(words) > 2 or not folder.is_dir():
        message = "a value is never given on the command line, where other processes and the shell's history see it"
        raise UsageError(message, "pipe it in, or leave it out and be asked; after NAME comes the project's folder")
    return words[0], folder


def _grant(only: tuple[str, ...], everyone: bool) -> Grant:
    from lampyr.vault.acts import Grant

    if only and everyone:
        raise UsageError("--only and --everyone exclude each other", "choose one")
    for route in only:
        if not route.startswith("/"):
            raise UsageError(f"--only {route} names no function", "a function is named by its route, such as /api/chat")
    return Grant(tuple(sorted(set(only))) if only else None, keep=not (only or everyone))


def _value(name: str) -> str:
    value = (
        getpass.getpass(f"Value of {name} (not shown): ") if sys.stdin.isatty() else _from_stdin(f"the value of {name}")
    )
    _warn_of_length(name, value)
    return value


def _from_stdin(what: str) -> str:
    """All of stdin, but for the line end that `echo` adds."""
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise VaultError(f"{what} is not UTF-8", "encode it, for example with base64") from None
    return text.removesuffix("\n").removesuffix("\r")


def _new_phrase() -> str:
    if not sys.stdin.isatty():
        return _from_stdin("the new passphrase")
    phrase = getpass.getpass("New passphrase: ")
    if getpass.getpass("Again: ") != phrase:
        raise VaultError("the two passphrases differ", "nothing has changed; try again")
    return phrase


def _warn_of_length(name: str, value: str) -> None:
    from lampyr.core import masks

    if 0 < len(value) < masks.MIN_CHARS:
        terminal.note(f"lampyr: warning: {name} is too short to be masked in responses and logs")
        terminal.note(f"hint: secrets of {masks.MIN_CHARS} characters or more are masked")


def _warn_of_routes(folder: Path, only: tuple[str, ...]) -> None:
    """Of functions that are not there, or not yet: until they are, nobody has the secret."""
    from lampyr import config
    from lampyr.build.scan import scan
    from lampyr.settings import did_you_mean

    if not only:
        return
    root = project_in(folder)
    try:
        known = sorted(function.route for function in scan(root, config.load(root)).functions)
    except LampyrError:
        return  # `lampyr build` says what is wrong with it
    for route in sorted(set(only).difference(known)):
        terminal.note(f"lampyr: warning: there is no function {route}")
        terminal.note(f"hint: {did_you_mean(route, known) or 'functions: ' + (', '.join(known) or 'none')}")


def _entry(row: Row) -> dict[str, Any]:
    return row._asdict()


def _told(row: Row) -> str:
    who = "all functions" if row.functions is None else ", ".join(row.functions)
    return f"{', '.join(row.environments)}, for {who} (version {row.version})"
