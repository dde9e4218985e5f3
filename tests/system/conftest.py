"""What several system tests ask of a server that their module has started."""

from __future__ import annotations

import subprocess
import sys

import pytest
from serving import Server


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    """Of the console, with its token, as `lampyr console` prints it."""
    command = [sys.executable, "-m", "lampyr", "console", str(server.root)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
