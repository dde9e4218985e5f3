"""A provider on loopback, for tests: it notes what it was sent and answers in the formats of OpenAI and Anthropic."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from lampyr.model import echoes
from lampyr.model.presence import Presence

WORDS = ["Fire", "flies", " blink"]


@dataclass
class Sent:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Fake:
    """`with Fake() as provider`. `statuses` are answered first.

    As a model "hold" streams until its caller leaves, "slow" takes 0.3 s, "sleep" does not answer; "echo-key" and
    "show-key" tell the key that they were sent, "large" has 7 MiB.
    """

    sent: list[Sent] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Fake:
        fake = self

        class Handler(_Handler):
            provider = fake

        self._server = _Door(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Door(ThreadingHTTPServer):
    request_queue_size = 128  # whom five others keep from connecting tries again after a second


class _Handler(BaseHTTPRequestHandler):
    provider: Fake
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._note(b"")
        self._whole(200, {"object": "list", "data": [{"id": "small", "object": "model"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._note(body)
        if self.provider.statuses:
            self._fail(self.provider.statuses.pop(0))
            return
        asked = json.loads(body)
        asked.setdefault("model", self.path.partition("/deployments/")[2].partition("/")[0])
        if asked["model"] == "redirect":
            self._whole(307, {}, ("location", "http://127.0.0.1:9/stolen"))
        elif asked["model"] == "echo-key":
            shown = {name: value for name, value in self.headers.items() if "auth" in name.lower() or "key" in name}
            self._whole(401, {"error": {"message": f"bad key: {shown}"}}, ("x-seen", str(shown)))
        elif asked["model"] == "show-key":
            self._show_key(asked)
        elif asked["model"] == "large":
            self._whole(200, {"filling": "x" * 7 * 1024 * 1024})
        elif asked["model"] == "sleep":
            self._until_gone()
        elif asked["model"].startswith("slow"):
            time.sleep(0.3)  # so that calls overlap
            self._completion(asked)
        elif asked["model"] == "hold":
            self._hold()
        elif self.path.endswith(("/responses", "/embeddings")):
            self._as_the_echo(body)
        elif self.path.endswith("/messages"):
            self._message(asked)
        else:
            self._completion(asked)

    def _show_key(self, asked: dict[str, Any]) -> None:
        """In a 200; of a stream, three bytes at a time."""
        shown = str({name: value for name, value in self.headers.items() if "auth" in name.lower() or "key" in name})
        if not asked.get("stream"):
            self._whole(200, {"shown": shown}, ("x-seen", shown))
            return
        text = f"data: {json.dumps({'shown': shown})}\n\n"
        self._events(text[at : at + 3] for at in range(0, len(text), 3))

    def _note(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.provider.sent.append(Sent(self.command, self.path, headers, body))

    def _fail(self, status: int) -> None:
        if status:
            self._whole(status, {"error": {"message": "not now"}})
        else:  # the connection breaks before the answer
            self.close_connection = True

    def _whole(self, status: int, value: object, *headers: tuple[str, str]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (("content-type", "application/json"), ("content-length", str(len(body))), *headers):
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def _completion(self, asked: dict[str, Any]) -> None:
        head = {"id": "c1", "created": 1, "model": asked["model"]}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            self._whole(200, {**head, "object": "chat.completion", "choices": choices, "usage": usage})
            return
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in WORDS]
        if (asked.get("stream_options") or {}).get("include_usage"):
            chunks.append({"choices": [], "usage": usage})
        lines = [json.dumps({**head, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
        self._events([f"data: {line}\n\n" for line in (*lines, "[DONE]")])

    def _as_the_echo(self, body: bytes) -> None:
        """In these formats ours is as good as any: the SDKs read it."""
        address = "/v1" + self.path.removeprefix("/v1")
        with Presence(self.connection) as presence:
            reply = echoes.ADDRESSES[address](body, presence)
            if isinstance(reply.body, bytes):
                self._whole(reply.status, json.loads(reply.body))
            else:
                self._events(event.decode() for event in reply.body)

    def _message(self, asked: dict[str, Any]) -> None:
        head = {"id": "m1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
        usage = {"input_tokens": 11, "output_tokens": 1}
        if not asked.get("stream"):
            content = [{"type": "text", "text": "".join(WORDS)}]
            self._whole(200, {**head, "content": content, "stop_reason": "end_turn", "usage": usage})
            return
        deltas = [{"type": "text_delta", "text": word} for word in WORDS]
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": usage}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]
        self._events([f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events])

    def _events(self, events: Iterable[str]) -> None:
        self._begin()
        for event in events:
            self._chunk(event)
        self.wfile.write(b"0\r\n\r\n")

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))

    def _hold(self) -> None:
        """One word, and nothing more; `left` is set when the caller has closed the connection."""
        self._begin()
        chunk = {"id": "c1", "created": 1, "model": "hold", "object": "chat.completion.chunk"}
        self._chunk(f"data: {json.dumps({**chunk, 'choices': [{'index': 0, 'delta': {'content': 'Fire'}}]})}\n\n")
        self._until_gone()

    def _until_gone(self) -> None:
        """Say nothing more, and note when the caller has closed the connection."""
        try:
            gone = self.connection.recv(1) == b""
        except OSError:
            gone = True
        self.close_connection = True
        if gone:
            self.provider.left.set()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
