"""The console as a person meets it: a real browser on every page of a real server, with functions that mean no good."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import chromium
import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from serving import Server, running, until

PICTURES = Path(__file__).parents[2] / "docs/img"
WITHIN_S = 60

# What a page must show and never run. Each would set `window.ran`.
MARKS = (
    "<script>window.ran=1</script>",
    "<img src=x onerror=window.ran=1>",
    '"><svg onload=window.ran=1>',
    "' onmouseover='window.ran=1' x='",
    "</pre></textarea></title><script>window.ran=1</script>",
    "{{ ''.__class__ }}${7*7}<%= 7*7 %>",
    "javascript:window.ran=1",
    "<iframe srcdoc='<script>parent.window.ran=1</script>'>",
    "\u2028<b id=planted>bold</b>\x1b[31m",
    "<a hx-get=/api/secrets hx-trigger=load data-poll>x</a>",
)
HOSTILE = "app/api/<img src=x onerror=window.ran=1>/route.py"
HOSTILE_ROUTE = "/api/<img src=x onerror=window.ran=1>"

FILES = {
    "app/api/chat/route.py": """
        import asyncio, json
        from lampyr import Response

        runtime = "edge"

        async def POST(req):
            body = await req.json()
            print("asked:", body["messages"][-1]["content"])

            async def stream():
                for word in "Fireflies glow because of a reaction .".split():
                    await asyncio.sleep(0.03)
                    yield "data: " + json.dumps({"choices": [{"delta": {"content": word + " "}}]}) + "\\n\\n"
                yield "data: [DONE]\\n\\n"

            return Response(stream(), headers={"content-type": "text/event-stream"})
        """,
    "app/api/items/[id]/route.py": """
        import logging

        rate_limit = "none"

        def GET(req):
            logging.getLogger("items").warning("item %s is asked for", req.params["id"])
            return {"id": req.params["id"]}
        """,
    "app/api/evil/route.py": f"""
        import sys

        MARKS = {MARKS!r}

        def GET():
            for mark in MARKS:
                print(mark)
            sys.stdout.flush()
            raise ValueError(" ".join(MARKS))

        def POST(req):
            return req.headers.get("x-mark")
        """,
    HOSTILE: "def GET(): return 'x'",
    ".env.local": "STRIPE_KEY=a-secret-value-of-stripe\n",
    "lampyr.toml": '[providers.openai]\nbase_url = "http://127.0.0.1:9/v1"\n',
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("console"), FILES) as server:
        for number in range(12):
            server.get(f"/api/items/{number}")
        server.request("POST", "/api/chat", json.dumps({"messages": [{"content": "Why?"}]}))
        for _ in range(2):
            assert server.get("/api/evil").status == 500
        yield server


@pytest.fixture(scope="module")
def chrome(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser that has opened the address once."""
    chrome = chromium.start(tmp_path_factory.mktemp("profile"))
    chrome.get(address)
    yield chrome
    chrome.quit()


@pytest.fixture
def page(chrome: Chrome, address: str) -> Iterator[Chrome]:
    """Afterwards: nothing ran that should not, nothing was complained of, and nobody else was asked."""
    chrome.get_log("browser")
    chrome.get_log("performance")
    yield chrome
    assert chrome.execute_script("return window.ran") is None
    assert chrome.find_elements(By.ID, "planted") == []
    assert [entry for entry in chrome.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    origin = address.partition("?")[0]
    elsewhere = [url for url in requested(chrome) if not url.startswith((origin, "data:", "chrome:"))]
    assert elsewhere == []


def requested(chrome: Chrome) -> list[str]:
    """The URL of every request the pages made."""
    events: list[dict[str, Any]] = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def go(chrome: Chrome, address: str, path: str) -> None:
    chrome.get(address.partition("?")[0].rstrip("/") + path)


def waits(chrome: Chrome) -> WebDriverWait[Chrome]:
    """Looks again where an element has been made anew since it was found: parts of pages are, every few seconds."""
    return WebDriverWait(chrome, WITHIN_S, 0.1, (StaleElementReferenceException,))


def find(chrome: Chrome, selector: str) -> Any:
    """A visible element; of a part of the page that stays as it is."""
    return waits(chrome).until(
        lambda _: next((one for one in chrome.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()), None),
        f"there is no {selector}",
    )


def text(chrome: Chrome, selector: str) -> str:
    """What an element reads, as soon as it reads anything."""
    return str(waits(chrome).until(lambda _: find(chrome, selector).text, f"{selector} never reads anything"))


def click(chrome: Chrome, by: str, what: str) -> None:
    def clicked(_: Chrome) -> bool:
        found = [one for one in chrome.find_elements(by, what) if one.is_displayed()]
        for one in found[:1]:
            one.click()
        return bool(found)

    waits(chrome).until(clicked, f"there is no {what}")


def reads(chrome: Chrome, selector: str, text: str) -> None:
    """Wait until an element has this text."""
    waits(chrome).until(
        lambda _: any(text in one.text for one in chrome.find_elements(By.CSS_SELECTOR, selector)),
        f"{selector} never reads {text!r}",
    )


def look(chrome: Chrome, scheme: str, width: int, height: int = 860, picture: str = "") -> None:
    """In this light and size nothing is wider than the page. `picture`: kept under that name."""
    chrome.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    if picture:
        time.sleep(0.4)  # charts follow the new size
        chrome.save_screenshot(str(PICTURES / f"console-{picture}.png"))
    waits(chrome).until(lambda _: chrome.execute_script(f"return innerWidth == {width}"), "the new size")
    fits = "return document.documentElement.scrollWidth <= innerWidth"
    waits(chrome).until(lambda _: chrome.execute_script(fits), "it does not fit")
    chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_overview_shows_what_runs_and_leads_everywhere(page: Chrome, address: str, server: Server) -> None:
    server.get("/api/items/1")
    go(page, address, "/")
    reads(page, "h1", "lit")
    figure = "return parseInt(document.querySelector('#figures dd').textContent.replace(/,/g, ''))"
    before = waits(page).until(lambda _: page.execute_script(figure))
    assert before >= 15
    # In one go: the list is made anew every few seconds.
    names = "return [...document.querySelectorAll('#functions td.name a')].map(one => one.textContent.trim())"
    assert page.execute_script(names) == [
        "/api/<img src=x onerror=window.ran=1>", "/api/chat", "/api/evil", "/api/items/[id]",
    ]  # fmt: skip
    find(page, "[data-chart=duration] canvas")
    server.get("/api/items/99")
    waits(page).until(lambda _: page.execute_script(figure) > before, "it does not live")
    for link, heading in (
        ("Invocations", "Invocations"), ("Errors", "Errors"), ("Log", "Log"), ("Playground", "Playground"),
        ("Secrets", "Secrets"), ("Overview", "lit"),
    ):  # fmt: skip
        click(page, By.PARTIAL_LINK_TEXT, link)
        reads(page, "h1", heading)
        assert text(page, "[aria-current=page]").startswith(link)


def test_a_function_is_drawn_and_its_words_are_explained(page: Chrome, address: str) -> None:
    go(page, address, "/functions/api/chat")
    assert text(page, "h1") == "/api/chat"
    words = waits(page).until(
        lambda _: [one.text.split("\n")[0] for one in page.find_elements(By.CSS_SELECTOR, ".word > button")]
    )
    assert [word.split()[0] for word in words] == ["SCALING", "EDGE_DEPLOYED", "SECURE", "OPTIMIZED", "Execution:"]
    drawn = text(page, ".way .wide")
    for part in ("Clients", "/api/chat", "Function", "Broker", "openai"):
        assert part in drawn
    for key, fact in (
        ("scaling", "100 (max_instances)"), ("deployed", "this machine"), ("secure", "OPENAI_API_KEY"),
        ("optimized", "ready"), ("execution", "p99"),
    ):  # fmt: skip
        click(page, By.CSS_SELECTOR, f"[popovertarget=why-{key}]")
        reads(page, f"#why-{key}", fact)
        page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    for chart in ("duration", "cold", "instances", "spending"):
        find(page, f"[data-chart={chart}] canvas")
    reads(page, "#log", "asked: Why?")


def test_an_invocation_has_its_timeline(page: Chrome, address: str) -> None:
    go(page, address, "/invocations?function=%2Fapi%2Fchat")
    click(page, By.CSS_SELECTOR, "#latest td.name a")
    reads(page, "h1", "/api/chat")
    shown = str(waits(page).until(lambda _: find(page, ".timeline").get_attribute("aria-label")))
    assert "handler" in shown and "stream" in shown
    reads(page, ".timeline", "first byte after")
    reads(page, ".log", "asked: ")


def test_errors_have_their_traceback_and_nothing_in_it_runs(page: Chrome, address: str) -> None:
    go(page, address, "/errors")
    trace = text(page, ".fault .trace")
    assert "ValueError" in trace and MARKS[0] in trace and "app/api/evil/route.py" in trace
    click(page, By.CSS_SELECTOR, ".fault a")
    reads(page, ".trace", MARKS[1])


def test_the_log_is_followed_and_filtered(page: Chrome, address: str, server: Server) -> None:
    go(page, address, "/logs")
    reads(page, "#lines", MARKS[0])
    server.get("/api/items/followed")
    reads(page, "#lines", "item followed is asked for")
    page.find_element(By.TAG_NAME, "body").send_keys("/")
    page.switch_to.active_element.send_keys("followed", Keys.ENTER)
    waits(page).until(lambda _: "contains=followed" in page.current_url)
    reads(page, "#lines", "item followed is asked for")
    assert MARKS[0] not in text(page, "#lines")
    server.get("/api/evil")
    server.get("/api/items/followed-too")
    reads(page, "#lines", "followed-too")
    assert MARKS[0] not in text(page, "#lines")


def test_secrets_have_names_only(page: Chrome, address: str) -> None:
    go(page, address, "/secrets")
    reads(page, "table", "STRIPE_KEY")
    assert "a-secret-value" not in page.page_source


def test_the_playground_shows_a_stream_arriving(page: Chrome, address: str) -> None:
    go(page, address, "/playground?function=/api/chat")
    click(page, By.CSS_SELECTOR, "#send")
    reads(page, "#text", "Fireflies glow because of a reaction .")
    assert text(page, "#status") == "200"
    assert text(page, "#token").endswith("ms")
    assert int(text(page, "#count")) >= 4
    assert len(page.find_elements(By.CSS_SELECTOR, "#pulse circle")) >= 4


def test_the_playground_shows_what_a_function_echoes_as_text(page: Chrome, address: str) -> None:
    go(page, address, "/playground?function=/api/evil")
    for mark in MARKS:
        if not mark.isascii() or "\x1b" in mark:
            continue
        page.execute_script("document.getElementById('headers').value = 'x-mark: ' + arguments[0]", mark)
        page.execute_script("document.getElementById('text').textContent = ''")
        click(page, By.CSS_SELECTOR, "#send")
        reads(page, "#text", mark)


@pytest.mark.parametrize(
    "path",
    ["/functions" + quote(HOSTILE_ROUTE), "/nowhere" + quote(MARKS[0]), "/functions/" + quote(MARKS[1]),
     "/invocations/" + quote(MARKS[2], safe=""), "/invocations?function=" + quote(MARKS[2]),
     "/logs?contains=" + quote(MARKS[4]) + "&function=" + quote(MARKS[3]) + "&level=" + quote(MARKS[0]),
     "/playground?function=" + quote(MARKS[0]), "/?window=" + quote(MARKS[0])],
)  # fmt: skip
def test_nothing_in_an_address_runs(chrome: Chrome, address: str, path: str) -> None:
    go(chrome, address, path)
    find(chrome, "h1")
    time.sleep(0.2)  # what would run has run
    assert chrome.execute_script("return window.ran") is None
    assert "Content Security Policy" not in str(chrome.get_log("browser"))


def test_the_keyboard_is_enough(page: Chrome, address: str) -> None:
    go(page, address, "/")
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the page"
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    page.find_element(By.TAG_NAME, "body").send_keys("gl")
    reads(page, "h1", "Log")
    page.find_element(By.TAG_NAME, "body").send_keys("2")
    reads(page, "h1", "/api/chat")
    page.find_element(By.TAG_NAME, "body").send_keys("?")
    find(page, "dialog[open]")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    before = page.execute_script("return getComputedStyle(document.body).color")
    page.find_element(By.TAG_NAME, "body").send_keys("t")
    until(lambda: page.execute_script("return getComputedStyle(document.body).color") != before, "the other theme")
    page.refresh()
    assert page.execute_script("return getComputedStyle(document.body).color") != before
    page.delete_cookie("lampyr-console-theme")


@pytest.mark.parametrize(
    "path", ["/", "/functions/api/chat", "/invocations", "/errors", "/logs", "/playground", "/secrets"]
)
@pytest.mark.parametrize(("scheme", "width"), [("dark", 390), ("light", 390), ("dark", 1280), ("light", 1280)])
def test_pages_fit_on_a_phone_and_on_a_desk(page: Chrome, address: str, path: str, scheme: str, width: int) -> None:
    go(page, address, path)
    find(page, "h1")
    look(page, scheme, width)


def test_a_server_without_calls_says_what_to_do(tmp_path: Path, chrome: Chrome) -> None:
    with running(tmp_path, {"app/api/hello/route.py": "def GET(): return 'hi'"}) as server:
        done = subprocess.run(
            [sys.executable, "-m", "lampyr", "console", str(server.root)], capture_output=True, text=True, check=True
        )
        chrome.get(done.stdout.strip())
        for path, says in (
            ("/", "Nobody has called yet"), ("/functions/api/hello", "Nobody has called this function yet"),
            ("/invocations", "Nobody has called yet"), ("/errors", "Nothing has gone wrong"),
            ("/secrets", "This project has no secrets"),
        ):  # fmt: skip
            go(chrome, done.stdout.strip(), path)
            reads(chrome, "main", says)
        server.get("/api/hello")
        go(chrome, done.stdout.strip(), "/")
        reads(chrome, "#latest", "/api/hello")


CHAT = FILES["app/api/chat/route.py"]
SHOWN = {
    "app/api/chat/route.py": CHAT.replace("0.03", "random.uniform(0.02, 0.09)").replace("json\n", "json, random\n", 1),
    "app/api/hello/route.py": "def GET(): return {'hello': 'world'}",
    "app/api/items/[id]/route.py": """
        import random, time

        rate_limit = "none"

        def GET(req):
            time.sleep(random.uniform(0.002, 0.02))
            if req.params["id"] == "13":
                raise LookupError("there is no item 13")
            return {"id": req.params["id"]}
        """,
    ".env.local": FILES[".env.local"],
    "lampyr.toml": "[providers.openai]\n",
}


@pytest.mark.skipif(os.environ.get("LAMPYR_SCREENSHOT") != "1", reason="only ./do docs takes the pictures again")
def test_the_pictures_of_the_docs(chrome: Chrome) -> None:
    # Its path is in tracebacks, so it is one that says nothing of whoever takes them.
    with tempfile.TemporaryDirectory(prefix="firefly-") as folder, running(Path(folder), SHOWN) as server:
        over = time.monotonic() + 200
        asked = json.dumps({"messages": [{"role": "user", "content": "Why do fireflies glow?"}]})
        while time.monotonic() < over:
            server.get(f"/api/items/{random.randrange(20)}")
            if random.random() < 0.4:
                server.get("/api/hello")
            if random.random() < 0.25:
                server.request("POST", "/api/chat", asked)
            time.sleep(random.uniform(0.05, 0.4))
        done = subprocess.run(
            [sys.executable, "-m", "lampyr", "console", str(server.root)], capture_output=True, text=True, check=True
        )
        address = done.stdout.strip()
        chrome.get(address)
        chat = threading.Thread(target=server.request, args=("POST", "/api/chat", asked))
        streamed = server.request("POST", "/api/chat", asked).headers["x-lampyr-id"]
        for path, picture, scheme, width, height in (
            ("/?window=15m", "overview", "dark", 1280, 1080), ("/?window=15m", "overview-light", "light", 1280, 1080),
            ("/functions/api/chat?window=15m", "function", "dark", 1280, 1080),
            ("/functions/api/chat?window=15m", "phone", "light", 390, 844), ("/errors", "errors", "dark", 1280, 860),
            ("/invocations", "invocations", "light", 1280, 860), ("/logs", "log", "dark", 1280, 860),
            (f"/invocations/{streamed}", "invocation", "light", 1280, 860), ("/secrets", "secrets", "light", 1280, 440),
        ):  # fmt: skip
            go(chrome, address, path)
            find(chrome, "h1")
            time.sleep(1)
            if picture == "function":
                chat.start()
                time.sleep(0.05)
                go(chrome, address, path)
                time.sleep(0.3)
            look(chrome, scheme, width, height, picture)
        chat.join()
        go(chrome, address, "/playground?function=/api/chat")
        click(chrome, By.CSS_SELECTOR, "#send")
        reads(chrome, "#text", "reaction")
        look(chrome, "dark", 1280, 860, "playground")
