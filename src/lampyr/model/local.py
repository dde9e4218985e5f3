"""A language model on this machine: llama.cpp in this process (xllamacpp), spoken to over its own loopback server."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lampyr.model.presence import Presence
from lampyr.model.wire import Reply, WireError

# 2,048 tokens of prompt take 15 s on two old cores, and their cache 47 MB; a demo model has no use for more.
CONTEXT_TOKENS = 2048
ANSWER_TOKENS = 512
# Between two batches llama.cpp looks whether the client is still there; 128 tokens are under a second.
BATCH_TOKENS = 128
PARALLEL = 2
THREADS = min(2, os.cpu_count() or 1)


class Local:
    """A loaded model. Requests go on to llama.cpp's server, which batches them and stops where its caller hangs up.

    That server is on loopback too, where everybody could find it: a fresh key keeps it ours.
    """

    def __init__(self, path: Path, id: str) -> None:
        import xllamacpp  # here, because it maps 100 MB and the echo needs none of it

        self.id = id
        self._key = secrets.token_hex(32)
        self._server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), path, id, self._key))
        self._address = urlsplit(self._server.listening_address).netloc

    def chat(self, request: dict[str, Any], presence: Presence) -> Reply:
        """An answer to a chat completion request; ends early where the client leaves."""
        upstream = http.client.HTTPConnection(self._address)
        upstream.connect()
        presence.on_left(partial(_hang_up, upstream.sock))
        body = json.dumps({**request, "model": self.id}).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._key}", "connection": "close"}
        upstream.request("POST", "/v1/chat/completions", body, headers)
        response = upstream.getresponse()
        if response.status == 200 and response.headers.get_content_type() == "text/event-stream":
            return Reply(200, _pieces(upstream, response))
        whole = response.read()
        upstream.close()
        if response.status != 200:
            raise _error(response.status, whole)
        return Reply(200, whole)


def _parameters(parameters: Any, path: Path, id: str, key: str) -> Any:
    parameters.model.path = str(path)
    parameters.model_alias = {id}  # else answers would name the file's path
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_predict = ANSWER_TOKENS
    parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
    parameters.n_parallel = PARALLEL
    parameters.kv_unified = True  # one long chat may use what the others leave
    parameters.n_threads_http = 2 * PARALLEL
    parameters.warmup = False
    for pool in (parameters.cpuparams, parameters.cpuparams_batch):
        pool.n_threads = THREADS
        pool.poll = 0  # no spinning: the gateway lives on the same cores
    # The model card's values; a small model rambles at 1.0, and without a penalty it ends in a loop.
    parameters.sampling.temp, parameters.sampling.top_p = 0.2, 0.9
    parameters.sampling.penalty_repeat, parameters.sampling.penalty_last_n = 1.1, 128
    parameters.cache_ram_mib = 0  # no prompts kept beyond the slots
    parameters.verbosity = 0  # no prompts in logs
    parameters.ui, parameters.cors_origins, parameters.endpoint_slots = False, "", False
    parameters.api_keys = [key]
    return parameters


def _pieces(upstream: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read1(65536):
            yield piece
    finally:
        upstream.close()


def _hang_up(upstream: socket.socket) -> None:
    # close() would leave the thread that reads from it blocked.
    try:
        upstream.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _error(status: int, body: bytes) -> WireError:
    """llama.cpp's errors have a number for a code and no param."""
    try:
        error = json.loads(body)["error"]
        message, kind = str(error["message"]), str(error["type"])
    except (ValueError, KeyError, TypeError):
        message, kind = "The model could not answer.", ""
    if kind == "exceed_context_size_error":
        message = f"This conversation is too long for the local model, which reads {CONTEXT_TOKENS} tokens at most."
        return WireError(status, message, code="context_length_exceeded", param="messages")
    return WireError(status, message)
