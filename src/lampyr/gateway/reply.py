"""What functions answer, made fit for clients: heads checked and masked, bodies masked and compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lampyr.gateway import compression, events, packed

if TYPE_CHECKING:
    from lampyr.core.masking import Masker, MaskStream
    from lampyr.gateway.answers import Headers
    from lampyr.gateway.exchange import Exchange, Lines

# Heads that are remembered for each deployment: at most 1 MiB of them.
MAX_KNOWN_HEADS = 1024
MAX_KNOWN_BYTES = 1024

# Framing is the gateway's business; a handler's own idea of it is dropped (RFC 9112 6, 9.6).
FRAMING = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection", b"te"})

# As a head says it where the function has compressed the body itself.
_CODED = b"\0content-encoding\0"


class Replies:
    """Those of one deployment. A ValueError says why a reply cannot be sent; nothing was sent then."""

    __slots__ = ("_known", "masker")

    def __init__(self, masker: Masker) -> None:
        self.masker = masker
        self._known: dict[bytes, Lines] = {}

    def whole(self, exchange: Exchange, head: bytes, body: bytes) -> tuple[Lines, bytes]:
        """Head and body of a reply that is complete."""
        if self.masker:
            coding = head.partition(_CODED)[2].partition(b"\0")[0] if _CODED in head else b""
            body = packed.mask(coding, body, self.masker) if coding else self.masker.mask(body)
        if len(body) >= compression.WORTH_BYTES:
            status, headers = self.read(head.split(b"\0"))
            body = compression.compress(_accepted(exchange), status, headers, body)
            return exchange.lines(status, headers), body
        return self._known.get(head) or self._learn(exchange, head), body

    def streamed(self, exchange: Exchange, fields: list[bytes]) -> tuple[int, Headers, Stream]:
        """Status and headers of a reply whose body comes in pieces, and what those go through."""
        status, headers = self.read(fields)
        watched = events.of(headers)
        encoder = compression.choose(_accepted(exchange), status, headers)
        masking = self.masker.stream() if self.masker else None
        if encoder is not None:
            encoder.add_headers(headers)
        elif masking is not None:  # a masked body has another length
            headers = [header for header in headers if header[0] != b"content-length"]
            if (opened := packed.stream(status, headers, masking)) is not None:
                return status, headers, Stream(*opened)
        return status, headers, Stream(masking, encoder, watched)

    def read(self, fields: list[bytes]) -> tuple[int, Headers]:
        """Status and headers as the instance wrote them, masked, without framing."""
        status = int(fields[0])
        if not 200 <= status <= 599:
            raise ValueError(f"status {status} is not between 200 and 599")
        mask = self.masker
        pairs = iter(fields[1:])
        headers = [(name, value) for name, value in zip(pairs, pairs, strict=True) if name not in FRAMING]
        if mask:
            headers = [(name, mask.mask_escaped(value)) for name, value in headers]
        return status, headers

    def text(self, text: str) -> str:
        """A message of the function's for its client."""
        mask = self.masker
        return mask.mask(text.encode(errors="replace")).decode(errors="replace") if mask else text

    def _learn(self, exchange: Exchange, head: bytes) -> Lines:
        """Functions mostly answer with the same head: to check and mask it takes 4 µs."""
        lines = exchange.lines(*self.read(head.split(b"\0")))
        if len(head) <= MAX_KNOWN_BYTES:
            if len(self._known) >= MAX_KNOWN_HEADS:
                self._known.clear()
            self._known[head] = lines
        return lines


class Stream:
    """The body of one reply on its way. What is held back for masking comes with a later piece, or with the rest."""

    __slots__ = ("_encoder", "_events", "_masking")

    def __init__(
        self,
        masking: MaskStream | packed.OpenedStream | None,
        encoder: compression.Encoder | None,
        watched: events.Events | None = None,
    ) -> None:
        self._masking = masking
        self._encoder = encoder
        self._events = watched

    def feed(self, data: bytes) -> bytes:
        """What may be sent now. Raises ValueError for what says that it is compressed, and is not."""
        if self._masking is not None:
            data = self._masking.feed(data)
        if self._events is not None:
            self._events.passed(data)
        return self._encoder.feed(data) if self._encoder is not None and data else data

    def rest(self) -> bytes:
        """Bytes yielded before a failure are delivered, those too that were held back. Nothing ends the body."""
        rest = self._masking.end() if self._masking is not None else b""
        if self._events is not None:
            self._events.passed(rest)
        return self._encoder.feed(rest) if self._encoder is not None and rest else rest

    def cut(self, code: str, message: str | None, id: str, more: dict[str, object]) -> bytes:
        """The rest of one that is cut and, where its readers know events, why."""
        rest = self.rest()
        if self._events is None:
            return rest
        event = self._events.error(code, message, id, more)
        return rest + (self._encoder.feed(event) if self._encoder is not None else event)

    def end(self) -> bytes:
        """The rest, and what ends the body."""
        rest = self.rest()
        return rest + self._encoder.end() if self._encoder is not None else rest


def _accepted(exchange: Exchange) -> bytes | None:
    for name, value in exchange.headers:
        if name == b"accept-encoding":
            return value
    return None
