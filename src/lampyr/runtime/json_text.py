"""JSON as it travels: exact in both directions (RFC 8259), compact UTF-8 on the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from json import JSONDecoder, encoder
from typing import Any, NoReturn

from lampyr.errors import BadRequest

BOM = b"\xef\xbb\xbf"


class NotJson(TypeError):
    """A value of a type that JSON has no words for."""


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


_DECODER = JSONDecoder(parse_constant=_refuse_constant)
_scan = _DECODER.scan_once  # type: ignore[attr-defined]  # typeshed leaves it out


def decode(data: bytes) -> Any:
    """The value of a JSON text: a BOM is skipped, invalid UTF-8 replaced, the last of equal keys wins.

    Raises BadRequest for anything else, NaN and Infinity included.
    """
    text = data.decode("utf-8", "replace")
    try:
        # The C scanner alone: half of `loads` is looking for white space around the value.
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, ValueError):
        pass
    except RecursionError:
        raise BadRequest("The request body is JSON nested too deeply.") from None
    return _decode_slowly(text)


def _decode_slowly(text: str) -> Any:
    """White space around the value, a BOM, or an error that has to be named."""
    text = text.removeprefix("\ufeff")
    if not text:
        raise BadRequest("The request body is empty, and JSON was expected.")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise BadRequest("The request body is JSON nested too deeply.") from None
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.") from None


def _plain(value: Any) -> Any:
    """What JSON can hold of a dataclass, a pydantic or msgspec model, a date or a UUID."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in kind.__dataclass_fields__}
    if hasattr(kind, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(kind, "__struct_fields__"):
        from msgspec import to_builtins

        return to_builtins(value)
    if hasattr(kind, "isoformat"):
        return value.isoformat()
    if kind.__module__ == "uuid":
        return str(value)
    raise NotJson(f"{kind.__name__} cannot be written as JSON")


def _make_chunks() -> Callable[[Any, int], Iterable[str]]:
    """What `JSONEncoder.iterencode` makes anew for every call, made once: 1.5 µs of every response.

    Without its table of containers a circular value raises RecursionError instead of ValueError.
    """
    parts: Any = encoder  # C names that the stubs do not list
    if parts.c_make_encoder is None:  # PyPy
        whole = encoder.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        return lambda value, _: whole.iterencode(value)
    chunks: Callable[[Any, int], Iterable[str]] = parts.c_make_encoder(
        None, _plain, parts.encode_basestring, None, ":", ",", False, False, False
    )
    return chunks


_chunks = _make_chunks()


def fault(error: Exception) -> str | None:
    """What is wrong with a value that `encode` refused with `error`; None for an error of the value's own code."""
    if isinstance(error, NotJson):
        return str(error)
    if isinstance(error, RecursionError):
        return "something holds itself, or is nested too deeply for JSON"
    # The words are CPython's, which has no classes for these, and since 3.12 the value stands at their end.
    if str(error).startswith("Out of range float"):
        return "NaN or Infinity cannot be written as JSON"
    if str(error).startswith("Exceeds the limit"):
        return "an int has more digits than Python writes (sys.set_int_max_str_digits)"
    return None


def encode(value: Any) -> bytes:
    """`value` as compact UTF-8. Raises TypeError for what JSON cannot hold, ValueError for NaN and Infinity."""
    text = "".join(_chunks(value, 0))
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate leaves as its escape, as JSON.stringify writes it.
        return text.encode("utf-8", "backslashreplace")
