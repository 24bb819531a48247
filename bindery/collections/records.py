"""Records: an item as it is stored. Checks and encodes on the way in, decodes on the way out.

Vectors are kept as float16. For unit vectors that moves a cosine by about 1e-5 (`tests/collections/test_records.py`
holds it below 1e-3), halves disk and memory, and doubles the speed of a scan; what `get` returns is what search compares.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bindery.collections.fields import FieldValue, clean_text, typed
from bindery.collections.model import Definition, Item, ItemResult
from bindery.errors import BinderyError, DimensionMismatch, InvalidParameter
from bindery.limits import Limits
from bindery.vectors import Vectors, normalize

ID_BYTES = 512
_URI_BYTES = 4096
_NAME_BYTES = 64

_STORED = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class Record:
    """One valid item in the catalog's own terms."""

    id: str
    modality: str
    data: bytes  # d x float16
    uri: str | None
    start_s: float | None
    end_s: float | None
    metadata: str  # JSON object
    fields: Mapping[str, FieldValue]  # the declared ones that have a value
    content_hash: str | None


def to_record(item: Item, definition: Definition, limits: Limits) -> Record:
    """Raises `DimensionMismatch`, `InvalidParameter` naming the field."""
    start, end = _seconds("start", item.start), _seconds("end", item.end)
    if start is not None and end is not None and end < start:
        raise InvalidParameter(f"end is {end}, before start {start}", pointer="/end")
    metadata, fields = encode_metadata(item.metadata, definition, limits)
    return Record(
        id=_text("id", item.id, ID_BYTES),
        modality=_text("modality", item.modality, _NAME_BYTES),
        data=encode_vector(check_vector(item.vector, definition)),
        uri=None if item.uri is None else _text("uri", item.uri, _URI_BYTES),
        start_s=start,
        end_s=end,
        metadata=metadata,
        fields=fields,
        content_hash=None if item.content_hash is None else _text("content_hash", item.content_hash, ID_BYTES),
    )


def to_records(
    items: Sequence[Item], definition: Definition, limits: Limits
) -> tuple[dict[int, ItemResult], dict[str, tuple[int, Record]]]:
    """The results, by position, of items that are not to be stored, and the others by id, each with its position.

    Of several items with one id the last is stored.
    """
    results: dict[int, ItemResult] = {}
    latest: dict[str, tuple[int, Record]] = {}
    for index, item in enumerate(items):
        try:
            record = to_record(item, definition, limits)
        except BinderyError as error:
            results[index] = ItemResult(item.id, "failed", error)
            continue
        if item.id in latest:
            results[latest[item.id][0]] = ItemResult(item.id, "superseded")
        latest[item.id] = (index, record)
    return results, latest


def check_vector(vector: Vectors, definition: Definition) -> Vectors:
    """The vector ``(d,)`` at unit length. Raises `DimensionMismatch`, `InvalidParameter`."""
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused below
        row = np.asarray(vector, dtype=np.float32)
    if row.shape != (definition.dimension,):
        raise DimensionMismatch(
            f"the vector has shape {row.shape}; collection {definition.name!r} takes ({definition.dimension},)", pointer="/vector"
        )
    if not np.isfinite(row).all():
        raise InvalidParameter("the vector has values that are not finite numbers", pointer="/vector")
    if not row.any():
        raise InvalidParameter("the vector is zero, so it has no direction", pointer="/vector")
    return normalize(row)


def encode_vector(vector: Vectors) -> bytes:
    return vector.astype(_STORED).tobytes()


def decode_vector(data: bytes) -> Vectors:
    return np.frombuffer(data, dtype=_STORED).astype(np.float32)


def decode_codes(blobs: list[bytes]) -> NDArray[np.uint8]:
    """Stored vectors as the index holds them: ``(n, 2 d)`` bytes."""
    return np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(len(blobs), -1)  # (n * 2 d,) -> (n, 2 d)


def encode_metadata(metadata: Mapping[str, Any], definition: Definition, limits: Limits) -> tuple[str, dict[str, FieldValue]]:
    """Metadata as JSON, and the typed values of its declared fields (null counts as absent)."""
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        raise InvalidParameter("metadata must be an object with string names", pointer="/metadata")
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameter(f"metadata is not JSON: {error}", pointer="/metadata") from error
    if size > limits.metadata_bytes:
        raise InvalidParameter(f"metadata has {size} bytes as JSON; at most {limits.metadata_bytes} are taken", pointer="/metadata")
    fields: dict[str, FieldValue] = {}
    for name, wanted in definition.fields.items():
        if metadata.get(name) is None:
            continue
        try:
            fields[name] = typed(metadata[name], wanted)
        except ValueError as error:
            raise InvalidParameter(f"metadata field {name!r}: {error}", pointer=f"/metadata/{name}") from error
    return text, fields


def merged(metadata: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396: objects merge, null removes, everything else replaces."""
    result = dict(metadata)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            inner = result.get(name)
            result[name] = merged(inner if isinstance(inner, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def _text(name: str, value: str, most_bytes: int) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidParameter(f"{name} must be a string that is not empty", pointer=f"/{name}")
    try:
        size = len(clean_text(value).encode("utf-8"))
    except ValueError as error:
        raise InvalidParameter(f"{name}: {error}", pointer=f"/{name}") from error
    if size > most_bytes:
        raise InvalidParameter(f"{name} has {size} bytes; at most {most_bytes} are taken", pointer=f"/{name}")
    return value


def _seconds(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidParameter(f"{name} must be seconds from the start of the media, 0 or more", pointer=f"/{name}")
    return float(value)
