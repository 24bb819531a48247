"""A manifest: one media file a row, with captions. CSV with a header, JSON Lines or Parquet, told apart by the file's suffix.

Columns: `path` and `captions` (a list, or one string split at " | "); as far as known also `id`, `label`, `split`, `modality`,
`weight`, `shard` (a tar beside the manifest that holds `path`, or an .npy of prepared tensors whose row it is),
`source`, `licence`, `attribution`, `pair_id`. Others are left alone.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any


class ManifestError(ValueError):
    """The manifest cannot be read as one. The message names the file and the row."""


@dataclass(frozen=True, slots=True)
class Item:
    """One media file. ``shard`` is the tar that holds ``path``; None: ``path`` is a file under ``root``."""

    id: str
    root: Path
    path: str
    shard: str | None
    captions: tuple[str, ...]
    label: str
    split: str
    source: str
    licence: str
    attribution: str
    pair_id: str
    modality: str = ""
    weight: float = 1.0
    """How often it is drawn, beside the others."""


def read_manifest(path: str | Path, *, split: str | None = None, wordless: bool = False, label: str = "label") -> list[Item]:
    """The items of one split (None: all), in the file's order. ``wordless``: some may have neither captions nor a label.

    ``label``: the column that is taken for the label. Raises `ManifestError`.
    """
    file = Path(path)
    rows = enumerate(_rows(file), start=1)
    items = [item_of(row, root=file.parent, where=f"{file}, row {number}", wordless=wordless, label=label) for number, row in rows]
    return [item for item in items if split is None or item.split == split]


def without_licences(items: Iterable[Item], patterns: Sequence[str]) -> list[Item]:
    """Items whose licence matches none of the shell-style ``patterns`` (`GPL*`)."""
    return [item for item in items if not any(fnmatchcase(item.licence, pattern) for pattern in patterns)]


def _rows(file: Path) -> Iterable[dict[str, Any]]:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ManifestError(f"{file} cannot be read: {error}") from error
    return _json_rows(file, text) if suffix in {".jsonl", ".ndjson"} else csv.DictReader(io.StringIO(text, newline=""))


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow  # an extra: only those who have such a manifest need it
        import pyarrow.parquet
    except ImportError as error:
        raise ManifestError(f"{file} needs pyarrow: pip install 'bindery[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise ManifestError(f"{file} cannot be read: {error}") from error


def _json_rows(file: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{file}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{file}, line {number} is not a JSON object")
        yield row


def item_of(row: Mapping[str, Any], *, root: Path, where: str, wordless: bool = False, label: str = "label") -> Item:
    """A row's item. ``where`` names the row in a `ManifestError`."""

    def text(column: str) -> str:
        value = row.get(column)
        return "" if value is None else str(value)

    captions = row.get("captions")
    parts = captions if isinstance(captions, list) else str(captions or "").split(" | ")
    cleaned = tuple(stripped for part in parts if (stripped := str(part).strip()))
    if not text("path"):
        raise ManifestError(f"{where} has no path")
    if not cleaned and not text(label) and not wordless:
        raise ManifestError(f"{where} has neither captions nor a label")
    return Item(
        id=text("id") or text("path"),
        root=root,
        path=text("path"),
        shard=text("shard") or None,
        captions=cleaned,
        label=text(label),
        split=text("split"),
        source=text("source"),
        licence=text("licence"),
        attribution=text("attribution"),
        pair_id=text("pair_id"),
        modality=text("modality"),
        weight=_weight(text("weight"), where),
    )


def _weight(written: str, where: str) -> float:
    try:
        weight = float(written or 1)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ManifestError(f"{where} has the weight {written!r}; it takes a number from 0 on")
    return weight
