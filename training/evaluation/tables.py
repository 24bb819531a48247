"""The layout `table`: a list of rows (CSV, JSON, JSON Lines, or lines of words) beside the files that it names.

Most benchmarks are this, under different column names. `where`:

- `rows`: the file, with `columns` when it has no header, `comment` for lines to leave out, `delimiter`; for JSON, `at` names the list in it
  (`sentences`), and an object of objects is read as rows whose key is the column `key`;
- `only`: {column: value or list of values}; `listed`: [file of ids, column];
- `files`: {modality: [path templates]}, tried in this order: `{column}`, `{column:06d}`;
- `label`: a column, `separator` when it holds several, `words`: {rows, key, value}, a table of labels' names;
- `captions`: columns; `group`: rows with this column in common are one sample; `paragraph`: its captions are one text.
"""

from __future__ import annotations

import csv
import json
import string
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bindery.media.source import Source
from training.evaluation.samples import Opener, Sample
from training.evaluation.task import TaskError


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rows(_Part):
    rows: str
    columns: tuple[str, ...] = ()
    comment: str = ""
    delimiter: str = ","
    at: str | None = None
    key: str = "key"


class Words(Rows):
    value: str


class Table(Rows):
    only: dict[str, str | tuple[str, ...]] = {}
    listed: tuple[str, str] | None = None
    files: dict[str, tuple[str, ...]]
    label: str | None = None
    separator: str | None = None
    words: Words | None = None
    captions: tuple[str, ...] = ()
    group: str | None = Field(None, description="None: every row is a sample of its own")
    paragraph: bool = False


def table_samples(data: Path, where: Mapping[str, Any]) -> Iterator[Sample]:
    """Raises `TaskError` when the table is not there; a file that is not there is its sample's error, met when it is opened."""
    table = Table.model_validate(where)
    wanted = {column: (values,) if isinstance(values, str) else values for column, values in table.only.items()}
    listed = _listed(data, table.listed)
    words = {row[table.words.key]: row[table.words.value] for row in read_rows(data, table.words)} if table.words else None
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(read_rows(data, table)):
        if all(_cell(row, column) in values for column, values in wanted.items()) and (
            listed is None or _cell(row, listed[1]) in listed[0]
        ):
            groups.setdefault(str(number) if table.group is None else _cell(row, table.group), []).append(row)
    for id_, rows in groups.items():
        captions = tuple(dict.fromkeys(caption for row in rows for column in table.captions for caption in _texts(row, column)))
        yield Sample(
            id=id_,
            media={modality: _opener(data, templates, rows[0]) for modality, templates in table.files.items()},
            labels=tuple(dict.fromkeys(label for row in rows for label in _labels(row, table, words))),
            captions=(" ".join(captions),) if table.paragraph and captions else captions,
        )


def read_rows(data: Path, rows: Rows) -> Iterator[dict[str, Any]]:
    path = data / rows.rows
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}; the task wants the published layout under --data") from error
    if path.suffix in {".json", ".jsonl"}:
        yield from _json_rows(path, text, rows)
        return
    lines = [line for line in text.splitlines() if line.strip() and not (rows.comment and line.startswith(rows.comment))]
    if rows.delimiter == " ":  # an id, then words: the last column keeps its spaces
        names = rows.columns
        yield from (dict(zip(names, line.split(" ", len(names) - 1), strict=False)) for line in lines)
        return
    yield from csv.DictReader(lines, fieldnames=rows.columns or None, delimiter=rows.delimiter, skipinitialspace=True)


def _json_rows(path: Path, text: str, rows: Rows) -> Iterator[dict[str, Any]]:
    try:
        found: Any = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else json.loads(text)
        if rows.at is not None:
            found = found[rows.at]
        if isinstance(found, dict):
            found = [{rows.key: key, **row} for key, row in found.items()]
        if not all(isinstance(row, dict) for row in found):
            raise TypeError("not every row is an object")
    except (ValueError, KeyError, TypeError) as error:
        raise TaskError(f"{path} is not as the task says: {error!r}") from error
    yield from found


class _Numbers(string.Formatter):
    """`{start:06d}` of a column that holds "12" or "12.0"."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return format(int(float(value)), format_spec) if format_spec.endswith("d") else format(value, format_spec)


def _opener(data: Path, templates: tuple[str, ...], row: Mapping[str, Any]) -> Opener:
    try:
        paths = [data / _Numbers().vformat(template, (), row) for template in templates]
    except (KeyError, ValueError) as error:
        raise TaskError(f"{templates} does not fit a row of the table: {error!r}") from error
    return partial(_first, paths)


def _first(paths: list[Path]) -> Source:
    return Source.of(next((path for path in paths if path.is_file()), paths[0]))


def _listed(data: Path, listed: tuple[str, str] | None) -> tuple[set[str], str] | None:
    if listed is None:
        return None
    try:
        return {line.strip() for line in (data / listed[0]).read_text(encoding="utf-8").splitlines() if line.strip()}, listed[1]
    except OSError as error:
        raise TaskError(f"{data / listed[0]} cannot be read: {error}") from error


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        raise TaskError(f"the table has no column {column!r}; it has {', '.join(str(name) for name in row)}")
    return str(row[column])


def _texts(row: Mapping[str, Any], column: str) -> list[str]:
    value = row.get(column)
    return [str(part).strip() for part in (value if isinstance(value, list) else [value]) if part is not None and str(part).strip()]


def _labels(row: Mapping[str, Any], table: Table, words: Mapping[str, str] | None) -> list[str]:
    if table.label is None:
        return []
    cell = _cell(row, table.label)
    labels = [part.strip() for part in (cell.split(table.separator) if table.separator else [cell])]
    return [words.get(label, label) for label in labels] if words else labels
