"""Clients that others wrote read what functions send: curl, OpenAI's SDK, the Vercel AI SDK, a browser."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from contract import Place
from openai import APIStatusError, AsyncOpenAI
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

AI_PACKAGE = "ai@6"
NPM_WITHIN_S = 120

CHUNKS = """
    from openai.types.chat import ChatCompletionChunk

    def chunk(finish=None, **delta):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return ChatCompletionChunk.model_validate(
            {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        )
"""
ROUTES = {
    "curl": """
        import hashlib

        async def GET(req):
            yield "lampyr " * 400
            yield "ends"

        async def POST(req):
            data = await req.bytes()
            return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        PUT = POST
    """,
    "curl/form": """
        async def POST(req):
            form = await req.form()
            file = form.get("file")
            return [form.get("word"), file.filename, file.content_type, file.size]
    """,
    "v1/chat/completions": CHUNKS
    + """
    import marks
    from lampyr import Response

    async def answer(prompt, mark):
        yield chunk(role="assistant", content="")
        for number, word in enumerate(prompt.split()):
            await marks.gate(f"{mark}-{number}")
            yield chunk(content=word + " ")
        yield chunk("stop")

    async def endless(mark):
        try:
            while True:
                yield chunk(content="more ")
        finally:
            marks.reach(f"{mark}-ended")

    async def POST(req):
        body = await req.json()
        prompt, mark = body["messages"][0]["content"], body["user"]
        if not body.get("stream"):
            return Response.json({"error": {"message": "only streams", "type": "invalid", "code": "x"}}, 422)
        return Response(endless(mark) if prompt == "endless" else answer(prompt, mark))
    """,
    "ui/[how]": CHUNKS
    + """
    from lampyr import ui_messages

    async def text(body):
        yield "You said: "
        yield body["messages"][-1]["parts"][0]["text"]

    async def model(body):
        yield chunk(reasoning_content="think")
        yield chunk(content="It is ")
        yield chunk(content="dark.")
        tool = {"index": 0, "id": "call1", "type": "function", "function": {"name": "light", "arguments": '{"on":'}}
        yield chunk(tool_calls=[tool])
        yield chunk(tool_calls=[{"index": 0, "function": {"arguments": "true}"}}])
        yield chunk("tool_calls")

    async def parts(body):
        yield {"type": "start", "messageId": "mine"}
        yield {"type": "data-weather", "data": {"c": 21}}
        yield "and text"

    async def fails(body):
        yield "begins"
        raise RuntimeError("secret words")

    async def POST(req):
        return ui_messages({"text": text, "model": model, "parts": parts, "fails": fails}[req.params["how"]](
            await req.json()
        ))
    """,
    "events": """
        import marks
        from lampyr import Event, sse

        async def GET(req):
            last, mark = req.headers.get("last-event-id"), req.query.get("mark")

            async def first():
                yield "plain"
                await marks.gate(f"{mark}-go")
                yield {"json": "é\\nx"}
                yield Event("two\\nlines", event="named", id="7", retry=50)

            async def resumed():
                yield f"resumed after {last}"
                await marks.gate(f"{mark}-end")

            return sse(resumed() if last else first())
    """,
}
FILES = {"public/page.html": "<!doctype html><meta charset=utf-8><title>events</title><link rel=icon href=data:,>"}


# --- curl


@pytest.fixture(scope="module")
def curl() -> str:
    found = shutil.which("curl")
    if found is None:
        pytest.skip("there is no curl")
    return found


def run_curl(curl: str, *arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run([curl, "-sS", "--max-time", "60", *arguments], input=stdin, capture_output=True, timeout=70)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("flags", [[], ["--compressed"], ["-N"], ["--http1.0"], ["-H", "Connection: close"]])
def test_curl_reads_a_stream(place: Place, curl: str, flags: list[str]) -> None:
    assert run_curl(curl, *flags, f"{place.url}/curl") == b"lampyr " * 400 + b"ends"


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (["--data-binary", "@-"], 3_000_000),
        (["-T", "-"], 3_000_000),  # chunked
        (["--data-binary", "@-", "-H", "Expect: 100-continue"], 2_000_000),
        (["-T", "-", "-H", "Expect: 100-continue"], 100),
        (["-X", "POST"], 0),
    ],
)
def test_curl_uploads(place: Place, curl: str, flags: list[str], size: int) -> None:
    data = os.urandom(size)
    said = json.loads(run_curl(curl, *flags, f"{place.url}/curl", stdin=data))
    assert said == {"length": size, "sha256": hashlib.sha256(data).hexdigest()}


def test_curl_sends_a_form(place: Place, curl: str) -> None:
    fields = ["-F", "word=two words", "-F", "file=@-;filename=a.bin;type=image/png"]
    assert json.loads(run_curl(curl, *fields, f"{place.url}/curl/form", stdin=b"\r\n" * 50)) == [
        "two words", "a.bin", "image/png", 100,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "path", "status"),
    [
        (["-I"], "/curl", b"200"),
        (["-L"], "/curl/", b"200"),
        ([], "/curl/", b"308"),
        (["--path-as-is"], "/x/../curl", b"200"),
        (["-X", "OPTIONS"], "/curl", b"204"),
        (["-X", "BREW"], "/curl", b"400"),
        ([], "/none", b"404"),
    ],
)
def test_curl_gets_a_status(place: Place, curl: str, flags: list[str], path: str, status: bytes) -> None:
    assert run_curl(curl, "-o", os.devnull, "-w", "%{http_code}", *flags, f"{place.url}{path}") == status


# --- the SDK of OpenAI


def _ask_model(place: Place, use: Any) -> Any:
    async def run() -> Any:
        async with AsyncOpenAI(base_url=f"{place.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            return await use(client)

    return asyncio.run(run())


def test_openai_reads_a_stream_word_by_word(place: Place, mark: str) -> None:
    async def use(client: AsyncOpenAI) -> list[str]:
        words: list[str] = []
        messages: Any = [{"role": "user", "content": "fireflies glow é"}]
        place.let(f"{mark}-0")
        async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True, user=mark):
            if text := chunk.choices[0].delta.content:
                words.append(text)
                place.let(f"{mark}-{len(words)}")  # the next is not made before this one was read
            if chunk.choices[0].finish_reason:
                words.append(chunk.choices[0].finish_reason)
        return words

    assert _ask_model(place, use) == ["fireflies ", "glow ", "é ", "stop"]


def test_openai_leaves_a_stream(place: Place, mark: str) -> None:
    async def use(client: AsyncOpenAI) -> None:
        messages: Any = [{"role": "user", "content": "endless"}]
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True, user=mark)
        async for _ in stream:
            break
        await stream.close()

    _ask_model(place, use)
    place.reached(f"{mark}-ended")


def test_openai_reads_an_error(place: Place, mark: str) -> None:
    async def use(client: AsyncOpenAI) -> APIStatusError:
        messages: Any = [{"role": "user", "content": "x"}]
        with pytest.raises(APIStatusError) as caught:
            await client.chat.completions.create(model="m", messages=messages, user=mark)
        return caught.value

    error = _ask_model(place, use)
    assert (error.status_code, error.code) == (422, "x")


# --- the Vercel AI SDK, which `useChat` is made of

READER = """
import { DefaultChatTransport, readUIMessageStream } from "ai";
const transport = new DefaultChatTransport({ api: process.argv[2] });
const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: "good evening" }] }];
const stream = await transport.sendMessages({ chatId: "c", messages, trigger: "submit-message" });
let last, versions = 0, error = null;
try {
  const read = readUIMessageStream({ stream, terminateOnError: true, onError: (e) => { error = String(e); } });
  for await (const message of read) { last = message; versions++; }
} catch (e) { error = String(e); }
console.log(JSON.stringify({ message: last, versions, error }));
"""


@pytest.fixture(scope="module")
def ai_sdk() -> Path:
    """A folder in which `ai` is installed; kept between runs, so that only the first one asks the network."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("there is no node with npm, which the Vercel AI SDK needs (Debian: apt install nodejs npm)")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lampyr-tests" / AI_PACKAGE
    if not (folder / "node_modules/ai/package.json").exists():
        _install(npm, folder)
    return folder


def _install(npm: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    (made / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", AI_PACKAGE]
    try:
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=NPM_WITHIN_S)
        why = done.stderr.strip()[-300:]
    except subprocess.TimeoutExpired:
        why = f"it took longer than {NPM_WITHIN_S} s"
    if not (made / "node_modules/ai/package.json").exists():
        shutil.rmtree(made)
        pytest.skip(f"npm could not install {AI_PACKAGE}: {why}")
    try:
        made.rename(folder)
    except OSError:  # another process of the tests has installed it meanwhile
        shutil.rmtree(made)


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        ("text", [{"type": "step-start"}, {"type": "text", "text": "You said: good evening", "state": "done"}]),
        (
            "model",
            [
                {"type": "step-start"},
                {"type": "reasoning", "text": "think", "state": "done"},
                {"type": "text", "text": "It is dark.", "state": "done"},
                {"type": "tool-light", "toolCallId": "call1", "state": "input-available", "input": {"on": True}},
            ],
        ),
        (
            "parts",
            [{"type": "data-weather", "data": {"c": 21}}, {"type": "text", "text": "and text", "state": "done"}],
        ),
        ("fails", [{"type": "step-start"}, {"type": "text", "text": "begins", "state": "streaming"}]),
    ],
)
def test_the_ai_sdk_reads_ui_messages(place: Place, ai_sdk: Path, how: str, parts: list[dict[str, Any]]) -> None:
    script = ai_sdk / f"read-{os.getpid()}.mjs"  # other runs of the tests use the folder too
    script.write_text(READER)
    try:
        command = ["node", str(script), f"{place.url}/ui/{how}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ai_sdk)
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    found = said["message"]["parts"]
    assert len(found) == len(parts)
    assert [{key: part[key] for key in wanted} for part, wanted in zip(found, parts, strict=True)] == parts
    assert said["message"]["role"] == "assistant" and said["versions"] >= 1
    assert ("FUNCTION_INVOCATION_FAILED" in (said["error"] or "")) == (how == "fails")
    assert "secret words" not in done.stdout


# --- a browser

LISTEN = """
window.seen = [];
const source = window.source = new EventSource(arguments[0]);
source.onopen = () => window.seen.push("open");
source.onmessage = (event) => window.seen.push(event.data);
source.addEventListener("named", (event) => window.seen.push(`named ${event.lastEventId} ${event.data}`));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chrome = chromium.start(tmp_path_factory.mktemp("profile"))
    yield chrome
    chrome.quit()


def test_an_event_source_reads_events_as_they_come_and_resumes(place: Place, mark: str, browser: Chrome) -> None:
    """Named events, several lines, ids; after the end it comes back with the id it saw last."""
    browser.get(f"http://127.0.0.1:{place.server.port}/page.html")
    browser.execute_script(LISTEN, f"/{place.runtime}/events?mark={mark}")

    def seen(count: int) -> list[str]:
        wait = WebDriverWait(browser, 60, 0.02)
        wait.until(lambda _: len(browser.execute_script("return window.seen")) >= count, f"fewer than {count} events")
        return list(browser.execute_script("return window.seen"))

    assert seen(2) == ["open", "plain"]
    place.let(f"{mark}-go")
    assert seen(6) == ["open", "plain", '{"json":"é\\nx"}', "named 7 two\nlines", "open", "resumed after 7"]
    browser.execute_script("window.source.close()")
    place.let(f"{mark}-end")
