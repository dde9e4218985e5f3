"""What goes over to a provider and what comes back: addresses, headers, errors. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lampyr.broker.desk import Provider, Refused

Headers = list[tuple[bytes, bytes]]

_OPENAI = (
    *("POST /chat/completions", "POST /completions", "POST /responses", "POST /embeddings", "POST /moderations"),
    *("POST /audio/speech", "POST /audio/transcriptions", "POST /audio/translations", "POST /images/generations"),
    *("GET /models", "GET /models/*"),
)
# What a kind has that is a question to a model. What is stored at the provider (files, past answers, keys of the
# account) belongs to all functions alike, so one that wants it says so in `paths`.
_ASKED_HERE = ("POST /v1/chat/completions", "GET /v1/models", "GET /v1/models/*")
PATHS = {
    "local": _ASKED_HERE,
    "echo": (
        *_ASKED_HERE,
        "POST /v1/responses",
        "POST /v1/embeddings",
        "POST /v1/messages",
        "POST /v1/messages/count_tokens",
    ),
    "openai": _OPENAI,
    "openai-compatible": _OPENAI,
    "anthropic": ("POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models", "GET /v1/models/*"),
}
# The provider, or what stands before it, has done nothing with the request; another attempt may fare better.
PASSING = frozenset((500, 502, 503, 504, 529))
TOO_MANY = 429
# Kinds whose model is on this machine.
HERE = ("local", "echo")
# Those that tell the tokens of a stream to who asks for them, and do not mind being asked.
TOLD_WHEN_ASKED = ("openai", *HERE)
# Where the version is in the path and not in `base_url`, as in functions' addresses of them.
VERSIONED = (*HERE, "anthropic")
# The SDKs would try again what has been tried again here.
TRIED = (b"x-should-retry", b"false")

# No percent, no empty segment, no dots alone: a path is read in one way by whoever reads it.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~:@+-]+)+")

# The model of a request in Azure's way: whatever its body says, this is who answers.
_DEPLOYMENT = re.compile(r"(?:.*?/)?deployments/([^/]+)/")

_ID = re.compile(rb"[0-9a-f]{24}")

# White space, byte order marks, and halves of letters in UTF-16: there are servers that read JSON behind and in them.
_BEFORE_JSON = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"

# Not the caller's to say: where a message ends, who it is from, and what another reader might take for the key.
_DROPPED = re.compile(
    rb"host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-length|accept-encoding|"
    rb"authorization|(?:[a-z]+-)*api-key|api-token|cookie|forwarded|via|proxy-.*|x-forwarded-.*|x-real-ip|"
    rb"x-http-method.*|x-original-.*|x-rewrite-.*|x-lampyr-.*"
)
_KEPT_BACK = re.compile(
    rb"connection|keep-alive|trailer|transfer-encoding|upgrade|content-length|content-encoding|set-cookie.*|location|"
    rb"alt-svc|strict-transport-security|date|x-lampyr-id|x-lampyr-cache|proxy-.*|www-authenticate|te"
)


def provider_of(target: str) -> tuple[str, str]:
    """The name of the provider in a target, and what follows it."""
    name, slash, rest = target[1:].partition("/")
    return name, slash + rest


def address(provider: Provider, method: str, rest: str) -> tuple[bytes, bytes, int | None, bytes]:
    """Scheme, host, port and target of a call. Only its path and query are the caller's. Raises Refused."""
    path, mark, query = rest.partition("?")
    if not _PATH.fullmatch(path) or "#" in query:
        raise Refused(404, "not_found_error", "The path is malformed; write it without percent signs and dots.")
    if not _allows(provider, method, path):
        raise Refused(
            403,
            "permission_error",
            f"{method} {path} is not among what functions may call of {provider.name}: see `paths`",
        )
    base = urlsplit(provider.base_url)
    return base.scheme.encode(), (base.hostname or "").encode(), base.port, f"{base.path}{path}{mark}{query}".encode()


def _allows(provider: Provider, method: str, path: str) -> bool:
    if provider.paths is not None:
        return method in ("GET", "POST") and any(path == one or path.startswith(f"{one}/") for one in provider.paths)
    for one in PATHS[provider.kind]:
        verb, _, allowed = one.partition(" ")
        if method == verb and (path == allowed or (allowed.endswith("/*") and path.startswith(allowed[:-1]))):
            return True
    return False


def request_headers(provider: Provider, headers: Headers) -> Headers:
    """The caller's headers with the key in the place of the placeholder."""
    kept = [(name, value) for name, value in headers if not _DROPPED.fullmatch(name)]
    # What is compressed could neither be searched for the key nor counted.
    kept.append((b"accept-encoding", b"identity"))
    if provider.key:
        key = provider.key.encode()
        if provider.kind == "anthropic":
            kept.append((b"x-api-key", key))
        elif provider.kind == "openai-compatible" and any(name == b"api-key" for name, _ in headers):
            kept.append((b"api-key", key))  # where the placeholder was, as in Azure's API
        else:
            kept.append((b"authorization", b"Bearer " + key))
    return kept


def response_headers(status: int, headers: Headers) -> Headers:
    """Those of a provider's that reach the function."""
    lower = [(name.lower(), value) for name, value in headers]
    kept = [one for one in lower if not _KEPT_BACK.fullmatch(one[0])]
    if status not in PASSING:
        return kept
    return [*(one for one in kept if one[0] != b"x-should-retry"), TRIED]


class Question(NamedTuple):
    """A request for a provider. `asked` is its JSON, {} where it is none; `rest` its path and query.

    `plain`: nobody reads it in another way than it was read here. `trimmed`: the answer brings an event with the tokens
    that nobody has asked for. `below`: the `base_url` that the path is below, which may name the model, too.
    """

    method: str
    rest: str
    headers: Headers
    body: bytes
    asked: dict[str, Any]
    plain: bool = True
    trimmed: bool = False
    below: str = ""

    @classmethod
    def of(cls, method: str, rest: str, headers: Headers, body: bytes, below: str = "") -> Question:
        """What a function has sent."""
        plain = not any(name == b"content-encoding" and value != b"identity" for name, value in headers)
        asked = {}
        if body.lstrip(_BEFORE_JSON)[:1] == b"{":
            try:
                asked = json.loads(body, object_pairs_hook=_said_once)
            except (ValueError, RecursionError):
                plain = False
        return cls(method, rest, headers, body, asked, plain, below=below)

    @property
    def path(self) -> str:
        """Without the query."""
        return self.rest.partition("?")[0]

    @property
    def deployment(self) -> str:
        """The model that the address names, "" where it names none."""
        found = _DEPLOYMENT.match(urlsplit(self.below).path + self.path)
        return found[1] if found else ""

    @property
    def wanted(self) -> object:
        """Who is to answer: what the address names, or the body."""
        return self.deployment or self.asked.get("model")

    @property
    def model(self) -> str:
        """The model that is asked for, "" where none is."""
        return self.wanted[:80] if isinstance(self.wanted, str) else ""

    def asking(self, **values: Any) -> Question:
        """The same with other values in its JSON."""
        asked = {**self.asked, **values}
        return self._replace(asked=asked, body=json.dumps(asked).encode())


def allow(provider: Provider, question: Question) -> None:
    """Raises Refused where it asks for a model that is not allowed, or nobody can tell which, and so at what price."""
    if not question.plain:
        raise Refused(400, "invalid_request_error", "The body is compressed, broken JSON, or has a name in it twice.")
    if not _has(provider, question):
        allowed = ", ".join(provider.models or ())
        raise Refused(403, "permission_error", f"{provider.name} may be asked for these models: {allowed}.")


def _has(provider: Provider, question: Question) -> bool:
    """Whether it may be asked for the model of a question, where one has any."""
    named = question.body or question.deployment
    return provider.models is None or not named or question.wanted in provider.models


def plan(first: Provider, others: Iterable[Provider], question: Question) -> list[tuple[Provider, Question]]:
    """Whom to ask what, one after the other: those of `others` too that may be asked this.

    Who has a list of models, without the one that is wanted, is asked for the first of them.
    """
    found = [(first, _telling(first, question))]
    for provider in others:
        asked = question._replace(rest=_versioned(provider, first, question.rest), below=provider.base_url)
        if not _has(provider, asked):
            if not question.asked or asked.deployment:
                continue  # not ours to rewrite
            assert provider.models is not None
            asked = asked.asking(model=provider.models[0])
        try:
            address(provider, asked.method, asked.rest)
        except Refused:
            continue
        found.append((provider, _telling(provider, asked)))
    return found


def _versioned(provider: Provider, first: Provider, rest: str) -> str:
    """The path and query for another provider than they were meant for."""
    there, here = provider.kind in VERSIONED, first.kind in VERSIONED
    return rest.removeprefix("/v1") if here and not there else f"/v1{rest}" if there and not here else rest


def _telling(provider: Provider, question: Question) -> Question:
    """The question that asks for the tokens too, where OpenAI tells them only then and nobody has asked."""
    asked = question.asked
    options = asked.get("stream_options") or {}
    silent = isinstance(options, dict) and not options.get("include_usage")
    streams = question.path.endswith("/completions") and asked.get("stream") is True
    if provider.kind in TOLD_WHEN_ASKED and streams and silent:
        return question.asking(stream_options={**options, "include_usage": True})._replace(trimmed=True)
    return question


def invocation(headers: Headers) -> str:
    """The invocation that makes a call, as its function says it (runtime/outgoing.py); "" where it does not."""
    said = next((value for name, value in headers if name == b"x-lampyr-id"), b"")
    return said.decode() if _ID.fullmatch(said) else ""


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # two readers may take different ones
        raise ValueError("a name stands there twice")
    return found


def error(refused: Refused) -> bytes:
    """An error that the SDKs of OpenAI and Anthropic both read."""
    inner = {"type": refused.kind, "message": refused.message, "code": refused.code, "param": None}
    return json.dumps({"type": "error", "error": inner}).encode()
