"""multipart/form-data as a stream: counted while it comes, small files in memory, larger ones on disk until the request ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from bindery.errors import MalformedMultipart, TooManyBytes, TooManyItems
from bindery.limits import Limits
from bindery.media.source import Source
from service.body import chunks_of
from service.spool import MEMORY_BYTES, WRITE_BYTES, Upload
from service.state import state_of


@dataclass(frozen=True, slots=True)
class FilePart:
    field: str
    source: Source


@dataclass(frozen=True, slots=True)
class FieldPart:
    field: str
    text: str


Part = FilePart | FieldPart


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[list[Part]]:
    """The parts in the order sent; the files lie on disk until the context ends.

    Raises `MalformedMultipart`, `TooManyBytes`, `TooManyItems`.
    """
    state = state_of(request)
    with form_parser(request.headers.get("content-type", ""), state.limits, state.spool) as parser:
        waiting = bytearray()
        async for chunk in chunks_of(request, most_bytes=state.limits.body_bytes, limit="body_bytes"):
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                await asyncio.to_thread(parser.feed, bytes(waiting))
                waiting.clear()
        # What is left of a small form is parsed quicker than it is handed to a thread; a large file's rest may touch the disk.
        last = bytes(waiting)
        await asyncio.to_thread(parser.finish, last) if len(last) > MEMORY_BYTES // 8 or parser.on_disk else parser.finish(last)
        yield parser.parts


@contextmanager
def form_parser(content_type: str, limits: Limits, spool: Path) -> Iterator[_Parser]:
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise MalformedMultipart("the Content-Type header has no boundary; let your HTTP library write it")
    try:
        parser = _Parser(boundary, limits, spool)
    except FormParserError as error:
        raise MalformedMultipart(f"the boundary cannot be used: {error}") from error
    try:
        yield parser
    finally:
        parser.close()


class _Parser:
    """python-multipart's state machine, with a bound on everything that a caller can make grow."""

    def __init__(self, boundary: bytes, limits: Limits, spool: Path) -> None:
        self._limits = limits
        self._spool = spool
        self._most_parts = max(limits.items_text, limits.items_media) + limits.labels + limits.templates + limits.form_fields
        self._field_bytes = 0
        self._part: _Growing | None = None
        self._header_name, self._header_value = bytearray(), bytearray()
        self._disposition: bytes | None = None
        self._kept: list[_Growing] = []
        self._ended = False
        self.parts: list[Part] = []
        self._machine = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    @property
    def on_disk(self) -> bool:
        return self._part is not None and self._part.upload.path is not None

    def feed(self, data: bytes) -> None:
        try:
            self._machine.write(data)
        except FormParserError as error:
            raise MalformedMultipart(f"the form cannot be read: {error}") from error

    def finish(self, data: bytes) -> None:
        if data:
            self.feed(data)
        if not self._ended:
            raise MalformedMultipart("the form ends before its last boundary; the upload was cut off")

    def close(self) -> None:
        for part in self._kept:
            part.upload.discard()

    def _on_part_begin(self) -> None:
        if len(self.parts) >= self._most_parts:
            raise TooManyItems(f"the form has more than {self._most_parts} parts; send several requests")
        self._disposition = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not field:
            raise MalformedMultipart("a part has no Content-Disposition: form-data; name=...")
        filename = options.get(b"filename")
        is_file = filename is not None or field == "file"
        name = (filename or b"").decode("utf-8", "replace") or field
        self._part = _Growing(field, name if is_file else None, self._spool)
        self._kept.append(self._part)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        assert part is not None, "data of a part without headers. This is a bug."
        size = part.upload.size + end - start
        if part.filename is not None:
            if size > self._limits.file_bytes:
                raise TooManyBytes(f"{part.filename} has more than {self._limits.file_bytes} bytes (limit file_bytes)")
        else:
            self._field_bytes += end - start
            if size > (most := self._limits.field_bytes):
                raise TooManyBytes(f"field {part.field!r} has more than {most} bytes (limit field_bytes); long data belongs in a file part")
            if self._field_bytes > self._limits.json_body_bytes:
                raise TooManyBytes(f"the fields have more than {self._limits.json_body_bytes} bytes together (limit json_body_bytes)")
        part.upload.write(data[start:end])

    def _on_part_end(self) -> None:
        part = self._part
        assert part is not None, "a part ended that never began. This is a bug."
        self.parts.append(part.done())
        self._part = None

    def _on_end(self) -> None:
        self._ended = True


class _Growing:
    """One part while it comes in."""

    def __init__(self, field: str, filename: str | None, spool: Path) -> None:
        self.field = field
        self.filename = filename
        self.upload = Upload(spool)

    def done(self) -> Part:
        if self.filename is not None:
            return FilePart(self.field, self.upload.source(self.filename))
        try:
            return FieldPart(self.field, self.upload.in_memory.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise MalformedMultipart(f"field {self.field!r} is not UTF-8 text; a file needs a filename in its part") from error
