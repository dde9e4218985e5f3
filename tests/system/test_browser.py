"""The chat of `lampyr init`, as a person meets it: a real browser, a real server, a real answer that grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.alone

if TYPE_CHECKING:
    from serving import Serve, Server

PICTURE = Path(__file__).parents[2] / "docs/img/chat.png"
ANSWER_WITHIN_S = 240  # the model is the last to get a core on a busy machine
QUESTION = "Why do fireflies glow at night? Please tell me about it in a few sentences."

# Remembers how long the answer was each time it changed, and how the page was: lit may be gone before anybody looks.
WATCH = """
window.states = [];
new MutationObserver(() => window.states.push(document.body.dataset.state)).observe(
  document.body, { attributes: true, attributeFilter: ["data-state"] });
window.lengths = [];
new MutationObserver(() => {
  const text = document.querySelector(".answer[aria-busy] .text");
  if (text && text.textContent.length) window.lengths.push(text.textContent.length);
}).observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true });
"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    chrome = chromium.start(tmp_path / "profile")
    yield chrome
    chrome.quit()


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> Server:
    """`lampyr start` on what `lampyr init --template chat` makes, but that a model without a core has more time."""
    made = tmp_path / "made"
    lampyr = Path(sys.executable).parent / "lampyr"
    subprocess.run([lampyr, "init", made, "--template", "chat"], check=True, capture_output=True)
    files = {str(path.relative_to(made)): path.read_text() for path in made.rglob("*") if path.is_file()}
    files["app/api/chat/route.py"] += f"\nfirst_byte_timeout = {ANSWER_WITHIN_S}\n"
    return serve(files)


@pytest.fixture
def page(browser: Chrome, server: Server) -> Iterator[Chrome]:
    """The open page. Afterwards: nothing went wrong in it, and it asked nobody but our server."""
    origin = f"http://127.0.0.1:{server.port}"
    browser.get(f"{origin}/")
    WebDriverWait(browser, 60).until(lambda _: text(browser, "#welcome h2"), "the page does not appear")
    browser.execute_script(WATCH)
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    # chrome: is the browser's own first tab, read from its own files.
    elsewhere = [url for url in requested(browser) if not url.startswith((f"{origin}/", "data:", "chrome:"))]
    assert elsewhere == []


def text(browser: Chrome, selector: str) -> str:
    """The visible text of an element."""
    return str(browser.find_element(By.CSS_SELECTOR, selector).text)


def requested(browser: Chrome) -> list[str]:
    """The URL of every request the page made."""
    events: list[dict[str, Any]] = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def state(browser: Chrome) -> str | None:
    """dark, waiting or lit."""
    return browser.find_element(By.TAG_NAME, "body").get_attribute("data-state")


def ask(browser: Chrome, question: str) -> None:
    browser.find_element(By.ID, "prompt").send_keys(question, Keys.ENTER)


def lit(browser: Chrome) -> None:
    """Wait until the answer has begun."""
    waiting = WebDriverWait(browser, ANSWER_WITHIN_S, 0.02)
    waiting.until(lambda _: "lit" in browser.execute_script("return window.states"), "never lit")


def dark(browser: Chrome) -> None:
    """Wait until nothing runs."""
    WebDriverWait(browser, ANSWER_WITHIN_S, 0.02).until(lambda _: state(browser) == "dark", "never dark")


def test_an_answer_grows_on_the_page(page: Chrome) -> None:
    ask(page, QUESTION)
    lit(page)
    dark(page)
    assert text(page, ".question") == QUESTION
    assert page.find_elements(By.CSS_SELECTOR, ".trouble") == []
    lengths: list[int] = page.execute_script("return window.lengths")
    assert len(set(lengths)) >= 3
    assert lengths == sorted(lengths)
    assert len(text(page, ".answer .text")) > 20
    assert "total" in text(page, ".answer .times")
    if os.environ.get("LAMPYR_SCREENSHOT") == "1":
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        page.save_screenshot(str(PICTURE))


def test_stop_ends_an_answer_for_the_page_and_for_the_function(page: Chrome, server: Server) -> None:
    ask(page, "Write a very long story about a lighthouse. " * 20)
    lit(page)
    page.find_element(By.ID, "stop").click()
    dark(page)
    assert text(page, ".answer .times").startswith("stopped")
    server.log("client_closed")
    assert page.find_element(By.ID, "send").is_displayed()
    assert not page.find_element(By.ID, "stop").is_displayed()


def test_nothing_runs_before_a_question_and_then_it_is_said_plainly_who_answers(page: Chrome, server: Server) -> None:
    assert text(page, "#model") == ""
    ask(page, QUESTION)
    lit(page)
    dark(page)
    assert text(page, ".answer .times").startswith("cold start")
    is_echo = text(page, "#model").startswith("echo")
    assert page.find_element(By.ID, "notice").is_displayed() == is_echo
