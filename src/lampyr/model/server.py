"""The HTTP side of the model process: the formats of OpenAI and Anthropic on an inherited loopback socket."""

from __future__ import annotations

import hmac
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from lampyr.model import echoes
from lampyr.model.backends import Backends
from lampyr.model.presence import Presence
from lampyr.model.wire import MAX_BODY_BYTES, Reply, WireError

KEEP_ALIVE_SECONDS = 15.0
LOOK_SECONDS = 1.0
LOCAL = "local"  # the name to write in code; GET /v1/models/local tells who that is


class Server(ThreadingHTTPServer):
    """Serves a listening socket that its parent made, one thread a connection, until nobody has called for a while."""

    daemon_threads = True
    timeout = LOOK_SECONDS

    def __init__(self, listener: socket.socket, backends: Backends, key: str = "") -> None:
        """`key` is what callers have to show, where there is one."""
        super().__init__(listener.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.backends = backends
        self.key = key
        self._lock = threading.Lock()
        self._connections = 0
        self._quiet_since = time.monotonic()

    def serve_until_idle(self, idle_seconds: float, parent: int) -> None:
        """Return once there was no connection for `idle_seconds`, or when the process `parent` has died.

        Connections are accepted in this thread only, so a caller is either answered or still waiting in the socket's
        queue, where whoever holds the socket sees it; none is accepted and then dropped.
        """
        while os.getppid() == parent and not self._is_idle(idle_seconds):
            self.handle_request()

    def _is_idle(self, idle_seconds: float) -> bool:
        with self._lock:
            return self._connections == 0 and time.monotonic() - self._quiet_since >= idle_seconds

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._lock:
            self._connections -= 1
            self._quiet_since = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: what can end here is a client that left, and a traceback could hold its words."""


class Handler(BaseHTTPRequestHandler):
    """One connection. Never logs: requests are people's words."""

    protocol_version = default_request_version = "HTTP/1.1"
    server_version, sys_version = "lampyr-model", ""
    timeout = KEEP_ALIVE_SECONDS
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        try:
            self._only_for_who_has_the_key()
        except WireError as error:
            self._send(error.reply())
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/v1/models":
            self._whole(200, {"object": "list", "data": self.server.backends.listing()})
        elif path.startswith("/v1/models/"):
            self._model(path.removeprefix("/v1/models/"))
        else:
            self._wrong_address()

    def do_POST(self) -> None:
        address = urlsplit(self.path).path
        if address != "/v1/chat/completions" and address not in echoes.ADDRESSES:
            self._wrong_address()
            return
        # A client may read as slowly as it likes; Presence notices the one that is gone.
        self.connection.settimeout(None)
        with Presence(self.connection) as presence:
            try:
                self._only_for_who_has_the_key()
                reply = self.server.backends.answer(address, self._body(), presence)
            except WireError as error:
                reply = error.reply()
            except (OSError, HTTPException):
                if presence.left:
                    self.close_connection = True
                    return
                reply = WireError(502, "The local model stopped in the middle of this request.").reply()
            self._send(reply)
        self.connection.settimeout(KEEP_ALIVE_SECONDS)

    def _only_for_who_has_the_key(self) -> None:
        given = self.headers.get("authorization", "").removeprefix("Bearer ")
        if self.server.key and not hmac.compare_digest(given.encode("latin-1", "replace"), self.server.key.encode()):
            self.close_connection = True
            raise WireError(401, "The models of a server answer its broker only.")

    def _body(self) -> bytes:
        length = self.headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            self.close_connection = True
            raise WireError(411, "A Content-Length is needed.")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise WireError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
        body = self.rfile.read(int(length))
        # Any web page may send other types here without asking; with this one its browser asks first, and gets a no.
        if self.headers.get_content_type() != "application/json":
            raise WireError(415, "The Content-Type must be application/json.")
        return body

    def _model(self, name: str) -> None:
        for index, model in enumerate(self.server.backends.listing()):
            if name == model["id"] or (name == LOCAL and index == 0):
                self._whole(200, model)
                return
        self._send(WireError(404, f"The model '{name}' does not exist.", code="model_not_found").reply())

    def _wrong_address(self) -> None:
        self.close_connection = True
        self._send(WireError(404, f"Unknown address ({self.command} {urlsplit(self.path).path}).").reply())

    def _whole(self, status: int, value: object) -> None:
        self._send(Reply(status, json.dumps(value).encode()))

    def _send(self, reply: Reply) -> None:
        if isinstance(reply.body, bytes):
            self._head(reply.status, "application/json", ("content-length", str(len(reply.body))))
            self.wfile.write(reply.body)
        else:
            self._head(reply.status, "text/event-stream", ("transfer-encoding", "chunked"))
            self._stream(reply.body)

    def _head(self, status: int, kind: str, length: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("cache-control", "no-cache")
        self.send_header(*length)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()

    def _stream(self, pieces: Iterator[bytes]) -> None:
        # Where the model fails half-way, the missing last chunk tells the client (RFC 9112 8).
        try:
            for piece in pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except (OSError, HTTPException):
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library finds wrong with a request, in OpenAI's shape."""
        self.close_connection = True
        self.requestline = getattr(self, "requestline", "")
        self._send(WireError(int(code), message or "The request cannot be understood.").reply())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: see the class."""
