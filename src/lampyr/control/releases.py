"""Deployments of a running server, as the command line asks for them: made, switched to, gone back to, one at a time.

The gateway builds a deployment beside the one that serves and has each of its functions prove its health. Only then
it is written down as the active one, and only then the gateway switches: whoever is killed in between, what is written
down serves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lampyr.build.packages import Packages
from lampyr.config import Config
from lampyr.control.door import Reply
from lampyr.control.registry import Index, Registry, as_told, preview_url
from lampyr.control.sealed import Unreachable
from lampyr.errors import BuildError, LampyrError, StateError
from lampyr.runtime.channel import Message
from lampyr.types import PREVIEW, PRODUCTION, Problem, Project

# A deployment that has served before is believed to be healthy if its functions take longer than this to prove it.
BACK_WITHIN_S = 0.7


@dataclass(frozen=True, slots=True)
class Release:
    """A deployment as it can be served: what its files say, with all their problems as `judged`, and the message that
    has the gateway serve it. `private` is the parcel that goes along, for the gateway's eyes only. `inventory` and
    `public_files` are for people (control/card.py), and when it was looked through. `packages` are by route.
    """

    project: Project
    judged: Project
    settings: Config
    message: Message
    private: int
    inventory: Mapping[str, Any] = field(default_factory=dict)
    public_files: int = 0
    packages: Mapping[str, Packages] = field(default_factory=dict)
    scanned_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    @property
    def id(self) -> str:
        return str(self.message["id"])

    def __del__(self) -> None:
        os.close(self.private)


@dataclass(slots=True)
class Errand:
    """What somebody at the door wants, until the gateway has done it. `write` writes it down."""

    release: Release
    reply: Reply
    write: Callable[[], Index]
    patience_s: float | None
    shows: bool = False  # as a preview, next to what serves
    begins: bool = False  # nothing serves before it
    switching: bool = False


class Releases:
    """`make(id, environment)` reads the files of a deployment, with the values of that environment of the vault.

    It raises LampyrError. `send` tells the gateway something.

    `served(release)` is called when another one serves.
    """

    def __init__(
        self,
        registry: Registry,
        url: str,
        make: Callable[[str, str], Release],
        send: Callable[[Message, tuple[int, ...]], None],
        served: Callable[[Release], None],
    ) -> None:
        self._registry = registry
        self._url = url
        self._make = make
        self._send = send
        self._served = served
        self._errand: Errand | None = None
        self._previews: dict[str, Release] = {}

    def begin(self, id: str, refused: Callable[[LampyrError], None]) -> None:
        """What serves first is made like any other deployment; and the previews there are. Raises LampyrError.

        `refused` hears why it cannot serve. The gateway is told by `meet_gateway`.
        """
        index = self._registry.read()
        for one in index.deployments.values():
            if one.preview:
                self._make_preview(one.id)
        try:
            release = self._make(id, PRODUCTION)  # last: what it says of a function holds
        except LampyrError:
            self._registry.discard(id)
            raise

        def reply(told: object) -> None:
            if isinstance(told, LampyrError):
                refused(told)

        write = self._registry.read if id == index.active else lambda: self._registry.add(id, preview=False)
        self._errand = Errand(release, reply, write, None, begins=True)

    @property
    def busy(self) -> bool:
        """Whether a deployment is being made."""
        return self._errand is not None

    def renew(self, active: str) -> Release:
        """What functions may have has changed: what serves, made anew, and so are the previews. Raises LampyrError."""
        release = self._make(active, PRODUCTION)
        for id in self._previews:
            if self._make_preview(id):
                self._show_again(self._previews[id])
        return release

    def _make_preview(self, id: str) -> bool:
        """False where its files cannot be read any more: that is no reason for others to go without."""
        try:
            self._previews[id] = self._make(id, PREVIEW)
        except LampyrError as error:
            self._send({"log": f"warning: the preview {id} cannot be read: {error.message}"}, ())
            return False
        return True

    def projects(self) -> list[tuple[Project, str]]:
        """Those whose functions may be called next to those that serve, each with its environment."""
        found = [(one.project, PREVIEW) for one in self._previews.values()]
        if (errand := self._errand) is not None:
            found.append((errand.release.project, PREVIEW if errand.shows else PRODUCTION))
        return found

    def meet_gateway(self) -> None:
        """There is a gateway that knows what serves, and nothing of this."""
        for one in self._previews.values():
            self._show_again(one)
        if self._errand is not None and self._errand.switching:
            self._finish(self._errand)
        elif self._errand is not None:
            self._prepare(self._errand)

    def _show_again(self, release: Release) -> None:
        self._send({"preview": release.message}, (release.private,))

    # --- what somebody at the door wants

    def ask(self, do: str, request: Message, reply: Reply) -> None:
        """Raises LampyrError."""
        if do == "deployments":
            reply(as_told(self._registry.read(), self._url))
            return
        if self._errand is not None:
            raise StateError(f"the deployment {self._errand.release.id} is being made", "ask again when it is done")
        try:
            if do == "deploy":
                self._deploy(request, reply)
            elif do == "rollback":
                self._go_back(request.get("id"), reply)
            else:
                self._promote(str(request.get("id")), reply)
        except Unreachable:
            raise StateError("the vault process has just been restarted", "ask again") from None

    def _deploy(self, request: Message, reply: Reply) -> None:
        if Path(str(request.get("root"))) != self._registry.root:
            message = f"the server serves {self._registry.root}, not {request.get('root')}"
            raise StateError(message, "name that folder, or start a server for this one")
        id = self._registry.copy()
        preview = bool(request.get("preview")) and id != self._registry.read().active
        try:
            release = self._make(id, PREVIEW if preview else PRODUCTION)
            if release.judged.errors:
                raise broken(release.judged.errors)
        except (LampyrError, Unreachable):
            self._registry.discard(id)
            raise
        write = partial(self._registry.add, id, preview=preview)
        self._run(Errand(release, reply, write, None, shows=preview))

    def _go_back(self, wanted: str | None, reply: Reply) -> None:
        index = self._registry.read()
        id = _found(index, wanted) if wanted else index.before
        if id is None:
            raise StateError("there is no deployment to go back to", "`lampyr deployments` lists those there are")
        if index.deployments[id].preview:
            raise StateError(f"{id} has never been active", f"`lampyr promote {id}` switches to a preview")
        self._run(Errand(self._make(id, PRODUCTION), reply, lambda: self._registry.go_back(id), BACK_WITHIN_S))

    def _promote(self, wanted: str, reply: Reply) -> None:
        index = self._registry.read()
        id = _found(index, wanted)
        if not index.deployments[id].preview:
            state = "is active already" if id == index.active else "is no preview"
            raise StateError(f"{id} {state}", "`lampyr deployments` lists what there is, `rollback` goes back")
        self._run(Errand(self._make(id, PRODUCTION), reply, lambda: self._registry.add(id, preview=False), None))

    def _run(self, errand: Errand) -> None:
        self._errand = errand
        self._prepare(errand)

    def _prepare(self, errand: Errand) -> None:
        release = errand.release
        self._send({"prepare": release.message, "patience_s": errand.patience_s}, (release.private,))

    # --- what the gateway says

    def prepared(self, id: str, failures: list[dict[str, Any]]) -> None:
        """All functions of the deployment have proved their health, or these have not."""
        errand = self._errand
        if errand is None or errand.release.id != id or errand.switching:
            return
        if failures:
            problems = [_problem(errand.release.project, one) for one in failures]
            self._refuse(errand, not_served(problems) if errand.begins else broken(problems))
            return
        try:
            self._keep(errand, errand.write())
        except LampyrError as error:
            self._refuse(errand, error)

    def _keep(self, errand: Errand, index: Index) -> None:
        """It is written down: now it is done."""
        id = errand.release.id
        errand.switching = True
        for other in [other for other in self._previews if not _is_preview(index, other)]:
            del self._previews[other]
            if other != id:
                self._send({"drop": other}, ())
        if errand.shows:
            self._previews[id] = errand.release
        else:
            self._served(errand.release)
        self._send({"show" if errand.shows else "switch": id}, ())

    def _refuse(self, errand: Errand, error: LampyrError) -> None:
        self._errand = None
        self._send({"forget": errand.release.id}, ())
        self._registry.discard(errand.release.id)
        errand.reply(error)

    def switched(self, id: str) -> None:
        """It serves."""
        if self._errand is not None and self._errand.release.id == id:
            self._finish(self._errand)

    def _finish(self, errand: Errand) -> None:
        self._errand = None
        id = errand.release.id
        if not errand.begins:  # who reads the log later wants to know from when on it was other code
            self._send({"log": f"the deployment {id} {'is a preview' if errand.shows else 'serves'}"}, ())
        errand.reply(
            {
                "id": id,
                "url": preview_url(self._url, id) if errand.shows else self._url,
                "active": not errand.shows,
                "warnings": [str(one) for one in errand.release.judged.warnings],
            }
        )


def _is_preview(index: Index, id: str) -> bool:
    return id in index.deployments and index.deployments[id].preview


def _found(index: Index, wanted: str) -> str:
    """The id that begins so. Raises StateError."""
    found = [id for id in index.deployments if id.startswith(wanted)]
    if len(found) != 1:
        what = "there is no deployment" if not found else "there are several deployments"
        raise StateError(f"{what} {wanted}", "`lampyr deployments` lists those there are")
    return found[0]


def _problem(project: Project, failure: dict[str, Any]) -> Problem:
    file = failure["file"].removeprefix(f"{project.root}/")
    hint = failure["hint"] or "`lampyr dev` shows the whole traceback; so does the server's log"
    line = failure["line"] if isinstance(failure["line"], int) else None
    return Problem(file=file, line=line, message=failure["message"], hint=hint)


def broken(problems: Sequence[Problem]) -> BuildError:
    """Why what served goes on serving."""
    message = f"the project cannot be deployed: {_count(problems)}; what served goes on serving"
    return BuildError(message, "mend what is named above and deploy again", problems)


def not_served(problems: Sequence[Problem]) -> BuildError:
    """Why a server does not start."""
    message = f"the project cannot be served: {_count(problems)}"
    return BuildError(message, "mend what is named above; `lampyr build` checks without serving", problems)


def _count(problems: Sequence[Problem]) -> str:
    return f"{len(problems)} error{'s' if len(problems) > 1 else ''}"
