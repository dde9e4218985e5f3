"""What is said to people whose code names what is not there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import lampyr
from lampyr.runtime.hints import _ELSEWHERE, cure


def hint(statement: str) -> str:
    with pytest.raises((ImportError, AttributeError)) as caught:
        exec(statement, {"lampyr": lampyr})
    return cure(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("JSONResponse", "Response.json(value, status=201)"),
        ("StreamingResponse", "return the generator"),
        ("HTTPException", "not_found()"),
        ("Respone", 'did you mean "Response"?'),
        ("notFound", 'did you mean "not_found"?'),
        ("permanentRedirect", 'did you mean "permanent_redirect"?'),
        ("UploadedFiles", 'did you mean "UploadedFile"?'),
        ("Lamp", "lampyr has BadRequest, "),
    ],
)
def test_a_name_that_lampyr_does_not_have(name: str, says: str) -> None:
    assert says in hint(f"from lampyr import Request, {name}")
    assert says in hint(f"lampyr.{name}")


def test_other_names_are_nobodys_business_here() -> None:
    assert hint("from json import JSONResponse") == hint("lampyr.Request.JSONResponse") == ""
    assert not _ELSEWHERE.keys() & set(lampyr.__all__)


async def _body() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda body: body["name"], "an await is missing"),
        (lambda body: body.get("name"), "an await is missing"),
        (lambda body: dict(body), "an await is missing"),
        (lambda _: lampyr.Response("x", status_code=201), "status=201"),  # type: ignore[call-arg]
        (lambda _: lampyr.Response.json([], media_type="x"), "status=201"),  # type: ignore[call-arg]
        (lambda _: lampyr.Request["x"], ""),
    ],
)
def test_a_call_as_it_is_written_elsewhere(call: Callable[[Any], object], says: str) -> None:
    body = _body()
    with pytest.raises((AttributeError, TypeError)) as caught:
        call(body)
    body.close()
    assert says in cure(caught.value) and bool(says) == bool(cure(caught.value))


def test_a_loop_in_a_loop() -> None:
    async def handler() -> None:
        asyncio.run(body)

    body = _body()
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(handler())
    body.close()
    assert "write await" in cure(caught.value)


def test_asking_for_what_is_not_there_loads_nothing() -> None:
    code = "import sys, lampyr; before = {*sys.modules}; hasattr(lampyr, 'x'); sys.exit(len({*sys.modules} - before))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
