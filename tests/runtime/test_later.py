"""What packages import at their first call is there when a route file, or packages for several, have been imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROUTE = """
import sys
import openai

client = openai.AsyncOpenAI(api_key="none")
"""
FIRST_CALLS = """
        before = set(sys.modules)
        client.chat.completions.create
        asyncio.run(anyio.to_thread.run_sync(int))
        print(sorted(set(sys.modules) - before))
"""


def run(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_first_calls_of_a_route_import_nothing(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/route.py").write_text(ROUTE)
    text = f"""
        import asyncio, sys, anyio.to_thread
        from lampyr.runtime import load
        client = load.load({str(tmp_path / "app/route.py")!r}, {str(tmp_path)!r}).client
    """
    assert run(text + FIRST_CALLS) == "[]"


def test_what_several_functions_share_has_it_too(tmp_path: Path) -> None:
    spec = {"root": str(tmp_path), "site": [], "isolated": False, "packages": ["openai", "anyio.to_thread"]}
    text = f"""
        import asyncio, sys
        from lampyr.runtime import shared
        asked = shared._import({spec!r})
        import anyio.to_thread, openai
        client = openai.AsyncOpenAI(api_key="none")
    """
    assert run(text + FIRST_CALLS) == "[]"


def test_a_version_that_is_not_known_is_passed_over() -> None:
    text = """
        import sys, types
        sys.modules["openai"] = sys.modules["anyio"] = types.ModuleType("another")
        from lampyr.runtime.later import import_later
        import_later()
    """
    assert run(text) == ""
