"""Forms: urlencoded ones, and multipart ones whose large files wait on disk instead of in memory."""

from __future__ import annotations

from collections.abc import Generator
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

from lampyr.errors import BadRequest
from lampyr.runtime.multimap import Multimap
from lampyr.runtime.query import parse_urlencoded

if TYPE_CHECKING:
    from lampyr.runtime.request import Body

# A file larger than this moves from memory to the instance's private temporary folder.
SPOOL_BYTES = 1024 * 1024
MAX_PARTS = 10_000

_ESCAPES = ((b"%0A", b"\n"), (b"%0a", b"\n"), (b"%0D", b"\r"), (b"%0d", b"\r"), (b"%22", b'"'))


class FileBytes(bytes):
    """What `UploadedFile.read` gives: bytes that may also be awaited, as in other frameworks."""

    def __await__(self) -> Generator[None, None, bytes]:
        return self
        yield


class UploadedFile:
    """A file of a form. It is closed when the invocation has ended, `after` included."""

    __slots__ = ("content_type", "file", "filename", "size")

    def __init__(self, filename: str, content_type: str) -> None:
        self.filename = filename
        self.content_type = content_type
        self.size = 0
        # A binary file, open for reading: for libraries that take one.
        self.file = SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115  closed by Form.close

    def read(self, size: int = -1) -> FileBytes:
        """The next `size` bytes, or all that are left; `await file.read()` gives the same."""
        return FileBytes(self.file.read(size))

    def seek(self, position: int) -> None:
        """Go to a position, in bytes from the start."""
        self.file.seek(position)

    def text(self) -> str:
        """The whole content as UTF-8; invalid bytes become U+FFFD."""
        self.file.seek(0)
        return self.file.read().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"<UploadedFile {self.filename!r} {self.content_type} {self.size} bytes>"


class Form(Multimap["str | UploadedFile"]):
    """The fields of a form: a str for each text field, an UploadedFile for each file."""

    __slots__ = ()

    def close(self) -> None:
        """Let go of the files."""
        for value in self.values():
            if isinstance(value, UploadedFile):
                value.file.close()


async def read(content_type: str, body: Body) -> Form:
    """Read `body` as the form that `content_type` announces. Raises BadRequest."""
    kind, _, _ = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return Form(parse_urlencoded(await body.all()))
    if kind == "multipart/form-data":
        return await _Multipart(content_type).read(body)
    raise BadRequest(
        "A form needs the Content-Type application/x-www-form-urlencoded or multipart/form-data, "
        f"and this request has {kind or 'none'}."
    )


class _Multipart:
    """Collects the parts that python-multipart finds (RFC 7578; names as WHATWG HTML escapes them)."""

    def __init__(self, content_type: str) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise BadRequest("The Content-Type of this form names no boundary.")
        self._options_of = parse_options_header
        self._pairs: list[tuple[str, str | UploadedFile]] = []
        self._headers: dict[str, bytes] = {}
        self._field = self._value = b""
        self._name = ""
        self._text = bytearray()
        self._file: UploadedFile | None = None
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    async def read(self, body: Body) -> Form:
        form = Form()
        form._pairs = self._pairs
        try:
            while piece := await body.next():
                self._feed(piece)
            if not self._complete:
                raise BadRequest("The form ends before its last boundary.")
        except BaseException:
            if self._file is not None:
                self._file.file.close()
            form.close()
            raise
        return form

    def _feed(self, piece: bytes) -> None:
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadRequest("The form is not valid multipart/form-data.") from error

    def _part_begin(self) -> None:
        if len(self._pairs) >= MAX_PARTS:
            raise BadRequest(f"The form has more than {MAX_PARTS} fields.")
        self._headers = {}
        self._field = self._value = b""
        self._text = bytearray()
        self._file = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower().decode("latin-1")] = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = self._options_of(self._headers.get("content-disposition"))
        name = options.get(b"name")
        if name is None:
            raise BadRequest("A part of the form has no name.")
        self._name = _unescape(name)
        filename = options.get(b"filename")
        if filename is not None:
            content_type = self._headers.get("content-type", b"text/plain").decode("latin-1")
            self._file = UploadedFile(_unescape(filename), content_type)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._text += data[start:end]
        else:
            self._file.file.write(data[start:end])
            self._file.size += end - start

    def _part_end(self) -> None:
        value: Any = self._text.decode("utf-8", "replace")
        if self._file is not None:
            self._file.file.seek(0)
            value, self._file = self._file, None
        self._pairs.append((self._name, value))

    def _end(self) -> None:
        self._complete = True


def _unescape(raw: bytes) -> str:
    """A name or file name; browsers write quotes and line ends as %22, %0D and %0A, and nothing else so."""
    for escape, byte in _ESCAPES:
        raw = raw.replace(escape, byte)
    return raw.decode("utf-8", "replace")
