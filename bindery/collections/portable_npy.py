"""clip-retrieval's layout: ``img_emb/img_emb_N.npy`` beside ``metadata/metadata_N.parquet``, row by row the same.

Every ``MODALITY_emb`` folder is read, ``img`` being images. An item's id is ``MODALITY/NAME``, the name being the first of
the columns id, key, image_path, uri and url that has a value, else ``N/ROW``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from bindery.collections.model import Definition, Item
from bindery.collections.portable_parquet import Row, is_rescaled, read_columns, row_count
from bindery.errors import DimensionMismatch, InvalidParameter, UnreadableMedia

_NAMES = ("id", "key", "image_path", "uri", "url")
_PLACES = ("uri", "image_path", "url")
_FLOATS = (np.dtype(np.float16), np.dtype(np.float32))


@dataclass(frozen=True, slots=True)
class Part:
    modality: str
    number: str
    vectors: Path
    metadata: Path


def parts(folder: Path) -> list[Part]:
    """All arrays of the folder, by modality and number."""
    found = []
    for path in sorted(folder.glob("*_emb/*_emb_*.npy")):
        short = path.parent.name.removesuffix("_emb")
        number = path.stem.removeprefix(f"{short}_emb_")
        modality = "image" if short == "img" else short
        found.append(Part(modality, number, path, folder / "metadata" / f"metadata_{number}.parquet"))
    return found


def check(part: Part, definition: Definition) -> None:
    """Raises `DimensionMismatch`, `UnreadableMedia`, and `InvalidParameter` when the files of a part do not belong together."""
    vectors = _map(part.vectors)
    if vectors.ndim != 2 or vectors.dtype not in _FLOATS:
        raise InvalidParameter(f"{part.vectors.name} holds {vectors.dtype} of shape {vectors.shape}; float16 or float32 (n, d) is taken")
    if vectors.shape[1] != definition.dimension:
        raise DimensionMismatch(
            f"{part.vectors.name} holds vectors of {vectors.shape[1]} values; collection {definition.name!r} takes {definition.dimension}"
        )
    if not part.metadata.is_file():
        raise InvalidParameter(f"{part.vectors.name} has no metadata/{part.metadata.name} beside it")
    if (told := row_count(part.metadata)) != len(vectors):
        raise InvalidParameter(f"{part.vectors.name} has {len(vectors)} rows, {part.metadata.name} has {told}; they must be the same rows")


def rows(part: Part) -> Iterator[Row]:
    vectors = _map(part.vectors)  # (n, d), read from disk row by row
    for index, values in enumerate(read_columns(part.metadata)):
        with np.errstate(over="ignore"):
            vector = np.array(vectors[index], dtype=np.float32)
        metadata = {name: plain for name, value in values.items() if (plain := _plain(value)) is not None}
        name = _first(metadata, _NAMES) or f"{part.number}/{index}"
        item = Item(f"{part.modality}/{name}", part.modality, vector, uri=_first(metadata, _PLACES), metadata=metadata)
        yield Row(f"{part.vectors.name} row {index}", item, is_rescaled(vector))


def _map(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UnreadableMedia(f"{path.name} is no array that can be read: {error}") from error


def _first(metadata: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(metadata[name]) for name in names if metadata.get(name) not in (None, "")), None)


def _plain(value: object) -> object:
    """A cell as JSON has it. NaN is how pandas writes a missing one."""
    if isinstance(value, float) and not isfinite(value):
        return None
    return value.isoformat() if isinstance(value, date) else value
