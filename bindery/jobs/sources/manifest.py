"""A manifest as a source: a CSV, JSONL or Parquet file with a row for each file.

Columns: ``uri`` (a path, relative ones against the manifest's folder, or `s3://...`), ``modality`` (may be missing or empty),
``metadata`` (an object, or JSON text); every other column is a metadata field. A row that is broken fails by itself.
When two rows name the same file, the later one counts.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

from bindery.collections.portable_parquet import read_columns
from bindery.errors import BinderyError, InvalidParameter, UnreadableMedia
from bindery.jobs.listing import Allowed, Listed, Rule, Unlisted, not_allowed, ruled, wanted
from bindery.jobs.retry import read_error
from bindery.jobs.sources.objects import SCHEME, Objects
from bindery.media.source import Source

_ROW_CHARS = 1 << 20
_AT_ONCE = 64  # rows whose files are looked at side by side: an object store takes its time for each

Row = Mapping[str, Any] | BinderyError
"""The columns of a row that have a value, or why it is none."""


class ManifestListing:
    """Implements `Listing`."""

    def __init__(self, source: str, include: Sequence[str], rules: Sequence[Rule], allowed: Allowed) -> None:
        self._path = Path(source)
        self._folder = self._path.absolute().parent
        self._include = include
        self._rules = rules
        self._allowed = allowed
        self._objects = Objects()
        if not self._path.is_file():
            raise InvalidParameter(f"{source} is not there, or is no file", pointer="/source")

    def __iter__(self) -> Iterator[Listed | Unlisted]:
        rows = _ROWS[self._path.suffix.lower()](self._path)
        with ThreadPoolExecutor(_AT_ONCE // 4, "manifest") as threads:
            numbered = enumerate(rows, start=1)
            while some := list(itertools.islice(numbered, _AT_ONCE)):
                yield from (entry for entry in threads.map(self._entry, some) if entry is not None)

    def opened(self, listed: Listed) -> AbstractContextManager[Source]:
        if listed.uri.startswith(SCHEME):
            return self._objects.opened(listed)
        return nullcontext(Source(listed.name, path=Path(listed.uri)))

    def _entry(self, numbered: tuple[int, Row]) -> Listed | Unlisted | None:
        number, row = numbered
        where = f"{self._path.name} row {number}"
        name = None
        try:
            if isinstance(row, BinderyError):
                raise row
            uri, name = self._place(row)
            if not wanted(name, self._include):
                return None
            if not self._allowed(uri):  # before anything is asked about it
                raise not_allowed(name)
            modality = _modality(row) or ruled(name, self._rules)
            metadata = _metadata(row)
            size, fingerprint = self._objects.listed(uri, name) if uri.startswith(SCHEME) else _facts(uri, name)
            return Listed(uri, name, size, modality, metadata, fingerprint)
        except BinderyError as error:
            if error.retryable:  # the whole list waits for its place, rather than lose its files one by one
                raise
            return Unlisted(name or where, type(error)(f"{where}: {error.detail}"), nameless=name is None)

    def _place(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Where the row's file is, and its name."""
        uri = row.get("uri")
        if not isinstance(uri, str):
            raise InvalidParameter("the column uri must name a file", pointer="/uri")
        if uri.startswith(SCHEME):
            return uri, uri
        if uri.startswith("file://"):
            uri = unquote(urlsplit(uri).path)
        elif "://" in uri:
            raise InvalidParameter(f"{uri[:200]!r} is neither a path nor an s3:// name, and nothing else is fetched", pointer="/uri")
        path = Path(os.path.normpath(self._folder / uri))
        return str(path), path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else str(path)


def _facts(path: str, name: str) -> tuple[int, str]:
    """Size and fingerprint of a local file. Raises `UnreadableMedia`."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise read_error(name, error) from error
    except ValueError as error:
        raise UnreadableMedia(f"{name} cannot be opened ({error})") from error
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableMedia(f"{name} is not a file")
    return found.st_size, f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


def _modality(row: Mapping[str, Any]) -> str | None:
    found = row.get("modality")
    if found is not None and not isinstance(found, str):
        raise InvalidParameter("the column modality must be text", pointer="/modality")
    return found


def _metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    given = row.get("metadata", {})
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(f"the column metadata is not JSON: {error}", pointer="/metadata") from error
    if not isinstance(given, Mapping):
        raise InvalidParameter("the column metadata must be an object", pointer="/metadata")
    columns = {name: _plain(value, name) for name, value in row.items() if name not in ("uri", "modality", "metadata")}
    return {name: value for name, value in {**_plain(given, "metadata"), **columns}.items() if value is not None}


def _plain(value: Any, name: str) -> Any:
    """What JSON has a form for. Raises `InvalidParameter`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, name) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, name) for inner in value]
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    raise InvalidParameter(f"the column {name} holds {type(value).__name__}, which is no metadata", pointer="/metadata")


def _csv_rows(path: Path) -> Iterator[Row]:
    with _opened(path) as stream:
        reader = csv.DictReader(stream)
        try:
            names = reader.fieldnames or ()
        except csv.Error as error:
            raise InvalidParameter(f"{path.name} is no CSV file: {error}", pointer="/source") from error
        if "uri" not in names:
            raise InvalidParameter(f"{path.name} has no column uri in its first line", pointer="/source")
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield InvalidParameter(str(error))
                continue
            if None in row:
                yield InvalidParameter("it has more cells than the first line has names")
            else:
                yield _readable({name: cell for name, cell in row.items() if cell})


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with _opened(path) as stream:
        while line := stream.readline(_ROW_CHARS):
            if not line.endswith("\n") and len(line) == _ROW_CHARS:
                while (rest := stream.readline(_ROW_CHARS)) and not rest.endswith("\n"):
                    pass
                yield InvalidParameter(f"the line has over {_ROW_CHARS} characters")
            elif line.strip():
                yield _object(line)


def _object(line: str) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InvalidParameter(f"it is not JSON: {error}")
    if not isinstance(found, dict):
        return InvalidParameter("it is not a JSON object")
    return _readable({name: value for name, value in found.items() if value is not None and value != ""})


def _parquet_rows(path: Path) -> Iterator[Row]:
    for row in read_columns(path):
        if "uri" not in row:
            raise InvalidParameter(f"{path.name} has no column uri", pointer="/source")
        yield {name: value for name, value in row.items() if value is not None and value != ""}


def _readable(row: dict[str, Any]) -> Row:
    """The row unless it holds bytes that were no UTF-8: those came through as lone surrogates."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return InvalidParameter("it is not UTF-8")
    return row


def _opened(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


_ROWS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
