"""The exception tree: what went wrong, whose fault it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lampyr.types import Problem


class LampyrError(Exception):
    """Anything Lampyr reports to a person: a message that names what was attempted on what, and a hint.

    `code` is the stable word of the CLI's JSON errors (SPEC 5); `problems` are the places in a project that are to
    blame, where there are such.
    """

    code = "ERROR"

    def __init__(self, message: str, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = problems

    def __str__(self) -> str:
        """The message, and the places below it."""
        return "\n".join((self.message, *map(str, self.problems)))


class UsageError(LampyrError):
    """The command line itself is wrong (exit code 2)."""

    code = "USAGE"


class ProjectError(LampyrError):
    """The folder is not a project, or cannot be read or written."""

    code = "PROJECT"


class ConfigError(LampyrError):
    """A setting is unknown, has the wrong type, or a value that is not allowed: in `line` of `file`, where it has one.

    `what` is the message without that place. Where several are wrong, they are its `problems`.
    """

    code = "CONFIG"

    def __init__(
        self,
        message: str,
        hint: str = "",
        problems: Sequence[Problem] = (),
        *,
        file: str = "",
        line: int | None = None,
    ) -> None:
        self.what, self.file, self.line = message, file, line
        place = f"{file}:{line}: " if line else f"{file}: " if file else ""
        super().__init__(place + message, hint, problems)


class BuildError(LampyrError):
    """The project has problems that keep it from being deployed."""

    code = "BUILD"


class StateError(LampyrError):
    """The state directory is in use, read-only, or damaged."""

    code = "STATE"


class PackagesError(StateError):
    """What a deployment asks for has to be installed first."""

    code = "PACKAGES"


class PortError(LampyrError):
    """The address cannot be listened on."""

    code = "PORT"


class ModelError(LampyrError):
    """A local model is unknown, cannot be fetched, or is not the file that was pinned."""

    code = "MODEL"


class VaultError(LampyrError):
    """The vault cannot be opened or written, or is not what was written."""

    code = "VAULT"


class BadRequest(ValueError):
    """The client's body or headers cannot be read as what the handler asked for.

    Not caught by the handler, it becomes the answer 400 BAD_REQUEST with this message (SPEC 2).
    """


class ClientDisconnect(Exception):
    """The client left while its request body was being read (the client's fault, never logged as ours)."""
