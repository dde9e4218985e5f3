"""Every example of the documentation runs as it is printed. tests/support/pages.py says how a page is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import Example, ask_client, ask_server, examples, matches, run_command
from serving import Server

from lampyr.testing import Client

ROOT = Path(__file__).parents[2]

EXAMPLES = {
    f"{page.name}:{example.line}": example
    for page in sorted((ROOT / "docs").glob("*.md"))
    for example in examples(page.read_text())
}


def each(wanted: Callable[[Example], object] = lambda example: True) -> pytest.MarkDecorator:
    """A test for each example that has what is wanted."""
    found = {name: example for name, example in EXAMPLES.items() if wanted(example)}
    return pytest.mark.parametrize("example", found.values(), ids=list(found))


@each()
def test_every_block_belongs_to_something_that_runs(example: Example) -> None:
    assert example.adrift == []
    assert example.exchanges or example.commands or example.tests


@each(lambda example: example.exchanges)
def test_a_server_answers_as_the_page_says(example: Example, tmp_path: Path) -> None:
    server = Server(example.write(tmp_path), "start")
    try:
        mistakes = [one for what in example.exchanges for one in what.mistakes(ask_server(server.port, what))]
    finally:
        server.stop()
    assert not mistakes, "\n".join([*mistakes, *server.lines])


@each(lambda example: any(not exchange.server_only for exchange in example.exchanges))
def test_the_client_for_tests_answers_the_same(example: Example, tmp_path: Path) -> None:
    exchanges = [exchange for exchange in example.exchanges if not exchange.server_only]
    with Client(example.write(tmp_path)) as client:
        mistakes = [one for what in exchanges for one in what.mistakes(ask_client(client, what))]
    assert not mistakes, "\n".join(mistakes)


@each(lambda example: example.commands)
def test_commands_print_what_the_page_says(example: Example, tmp_path: Path) -> None:
    root = example.write(tmp_path)
    if any(command.startswith("lampyr logs") for _, command, _ in example.commands):
        server = Server(root, "start")
        for what in example.exchanges:
            ask_server(server.port, what)
        server.stop()
    for line, command, expected in example.commands:
        got = run_command(root, command)
        if "is the index reachable?" in got and "is the index reachable?" not in expected:
            pytest.skip("no index can be reached")
        assert matches(expected, got), f"line {line}: $ {command}\n{got}"


@each(lambda example: example.tests)
def test_the_tests_on_a_page_pass(example: Example, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *example.tests]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    root = example.write(tmp_path)
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_route_of_the_readme_streams_a_chat(tmp_path: Path) -> None:
    """As printed, with the echo in the place of a model."""
    (example,) = examples((ROOT / "README.md").read_text())
    assert list(example.files) == ["app/api/chat/route.py"] and not example.adrift
    example.files["lampyr.toml"] = '[providers.local]\nkind = "echo"\n'
    server = Server(example.write(tmp_path), "start")
    try:
        answer = server.request("POST", "/api/chat", '{"messages": [{"role": "user", "content": "Hello"}]}')
        refused = [server.request("POST", "/api/chat", body) for body in ("{}", "[]", '"hello"')]
    finally:
        server.stop()
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body.startswith(b"data: {") and b"Hello" in answer.body and answer.body.endswith(b"data: [DONE]\n\n")
    assert [(one.status, one.error) for one in refused] == [(400, "BAD_REQUEST")] * 3
