"""A collection as Parquet: one row an item, at most 100,000 rows a file, the definition in each file's metadata.

Columns: id, modality, uri, start, end (seconds), metadata (JSON), content_hash, vector (FixedSizeList<float32>[d]), and
``metadata.NAME`` for each declared field, for other tools to read: an import takes metadata from the JSON alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bindery.collections.fields import check_fields, typed
from bindery.collections.model import Collection, Definition, FieldType, Item
from bindery.errors import AlreadyExists, BinderyError, DimensionMismatch, InvalidParameter, UnreadableMedia
from bindery.extras import needing
from bindery.vectors import Vectors

ROWS_PER_FILE = 100_000

_PAGE = 500
_DEFINITION = b"bindery.definition"
_NEEDED = ("id", "modality", "vector")
_OPTIONAL = ("uri", "start", "end", "metadata", "content_hash")
_LENGTH_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of a file: its item, or why it is none."""

    where: str  # file and row, for people
    item: Item | BinderyError
    rescaled: bool = False


def export_collection(collection: Collection, out: Path, *, rows_per_file: int = ROWS_PER_FILE) -> int:
    """Write every item below ``out``, made if it is missing; how many there were. Others may write meanwhile: items that
    are added while it runs may be in or not, and none is there twice.

    Raises `AlreadyExists` when ``out`` holds Parquet files already, `InvalidParameter` when it cannot be written.
    """
    if files(out):
        raise AlreadyExists(f"{out} holds Parquet files already; name an empty folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(collection, out, rows_per_file)
    except OSError as error:
        raise InvalidParameter(f"{out} cannot be written: {error.strerror or error}") from error


def _write(collection: Collection, out: Path, rows_per_file: int) -> int:
    total, number, more = 0, 0, True
    pages = _pages(collection, rows_per_file)
    while more:
        final = out / f"part-{number:05}.parquet"
        partial = final.with_suffix(".partial")  # a file under its own name is whole
        rows = 0
        with ShardWriter(partial, collection.definition) as writer:
            for items, more in pages:
                writer.write(items)
                rows += len(items)
                if rows >= rows_per_file or not more:
                    break
        partial.rename(final)
        total, number = total + rows, number + 1
    return total


class ShardWriter:
    """One file of items, written a group at a time; closed when the context is left."""

    def __init__(self, path: Path, definition: Definition) -> None:
        self._definition = definition
        self._schema = _schema(definition)
        self._writer = pyarrow("pyarrow.parquet").ParquetWriter(path, self._schema)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, items: Sequence[Item]) -> None:
        self._writer.write_table(_table(items, self._definition, self._schema))


def items_between(path: Path, start: str = "", stop: str | None = None) -> list[Item]:
    """The items of a file that `ShardWriter` wrote whose ids are ``start`` or later, and before ``stop``. Raises `UnreadableMedia`."""
    pa = pyarrow("pyarrow")
    wanted = [("id", ">=", start), *([] if stop is None else [("id", "<", stop)])]
    try:
        found = pyarrow("pyarrow.parquet").read_table(path, columns=[*_NEEDED, *_OPTIONAL], filters=wanted)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableMedia(f"{path.name} cannot be read: {error}") from error
    vectors = found.column("vector").combine_chunks()
    matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(found), -1)  # (n * d,) -> (n, d)
    return [
        Item(vector=matrix[index], **{**values, "metadata": _metadata(values["metadata"])})
        for index, values in enumerate(found.drop_columns(["vector"]).to_pylist())
    ]


def _pages(collection: Collection, rows_per_file: int) -> Iterator[tuple[list[Item], bool]]:
    """Pages that end where a file ends, and whether more follow."""
    cursor, room = None, rows_per_file
    while True:
        page = collection.page(min(_PAGE, room), cursor)
        yield page.items, page.cursor is not None
        cursor, room = page.cursor, room - len(page.items) or rows_per_file
        if cursor is None:
            return


def _schema(definition: Definition) -> Any:
    pa = pyarrow("pyarrow")
    types = {
        "keyword": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "datetime": pa.timestamp("us", "UTC"),
    }
    columns = [("id", pa.string()), ("modality", pa.string()), ("uri", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
    columns += [("metadata", pa.string()), ("content_hash", pa.string())]
    columns += [(f"metadata.{name}", types[kind]) for name, kind in definition.fields.items()]
    columns += [("vector", pa.list_(pa.float32(), definition.dimension))]
    return pa.schema(columns, metadata={_DEFINITION: json.dumps(asdict(definition)), b"bindery.space": definition.space})


def _table(items: Sequence[Item], definition: Definition, schema: Any) -> Any:
    pa = pyarrow("pyarrow")
    vectors = np.concatenate([item.vector for item in items]) if items else np.empty(0, np.float32)  # (n * d,)
    columns: dict[str, Any] = {name: [getattr(item, name) for item in items] for name in ("id", "modality", "uri", "start", "end")}
    columns["metadata"] = [json.dumps(item.metadata, ensure_ascii=False) for item in items]
    columns["content_hash"] = [item.content_hash for item in items]
    for name, kind in definition.fields.items():
        columns[f"metadata.{name}"] = [_field(item, name, kind) for item in items]
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors, pa.float32()), definition.dimension)
    return pa.table(columns, schema=schema)


def _field(item: Item, name: str, kind: FieldType) -> object:
    value = item.metadata.get(name)
    return None if value is None else typed(value, kind)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def stated(path: Path) -> Definition | None:
    """The definition in the file's metadata. Raises `UnreadableMedia`."""
    with _open(path) as file:
        return _stated(file, path)


def check(path: Path, definition: Definition) -> str | None:
    """The space that the file states, None for none. Raises `DimensionMismatch`, `UnreadableMedia`, `InvalidParameter`."""
    with _open(path) as file:
        schema = file.schema_arrow
        if missing := [name for name in _NEEDED if name not in schema.names]:
            raise InvalidParameter(f"{path.name} has no column {' or '.join(missing)}; an import needs {', '.join(_NEEDED)}")
        size = getattr(schema.field("vector").type, "list_size", definition.dimension)
        if size != definition.dimension:
            raise DimensionMismatch(
                f"{path.name} holds vectors of {size} values; collection {definition.name!r} takes {definition.dimension}"
            )
        found = _stated(file, path)
        return None if found is None else found.space


def rows(path: Path) -> Iterator[Row]:
    """Every row, in order. Raises `UnreadableMedia` where the file breaks off."""
    pa = pyarrow("pyarrow")
    number = 0
    with _open(path) as file:
        columns = [name for name in (*_NEEDED, *_OPTIONAL) if name in file.schema_arrow.names]
        try:
            for batch in file.iter_batches(_PAGE, columns=columns):
                vectors = batch.column("vector")
                for index, values in enumerate(batch.drop_columns(["vector"]).to_pylist()):
                    yield _row(f"{path.name} row {number}", values, vectors[index])
                    number += 1
        except (pa.ArrowException, OSError) as error:
            raise UnreadableMedia(f"{path.name} is damaged at or after row {number}: {error}") from error


def _row(where: str, values: dict[str, Any], vector: Any) -> Row:
    try:
        item = Item(vector=_vector(vector), **{**values, "metadata": _metadata(values.get("metadata"))})
    except BinderyError as error:
        return Row(where, error)
    return Row(where, item, is_rescaled(item.vector))


def is_rescaled(vector: Vectors) -> bool:
    return abs(float(np.linalg.norm(vector)) - 1) > _LENGTH_TOLERANCE


def _vector(scalar: Any) -> Vectors:
    if getattr(scalar, "values", None) is None or scalar.values.null_count:
        raise InvalidParameter("the vector is missing or has empty values", pointer="/vector")
    try:
        return np.asarray(scalar.values.to_numpy(zero_copy_only=False), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidParameter("the vector does not hold numbers", pointer="/vector") from error


def _metadata(given: object) -> Any:
    if not isinstance(given, str):
        return {} if given is None else given  # an object is taken as it is; the collection refuses what is none
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"metadata is not JSON: {error}", pointer="/metadata") from error


def _stated(file: Any, path: Path) -> Definition | None:
    text = (file.schema_arrow.metadata or {}).get(_DEFINITION)
    if text is None:
        return None
    try:
        found = json.loads(text)
        name, space, bundle = (str(found[key]) for key in ("name", "space", "bundle"))
        return Definition(name, space, int(found["dimension"]), bundle, check_fields(found["fields"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableMedia(f"{path.name}: its {_DEFINITION.decode()} is not one that an export writes") from error


def _open(path: Path) -> Any:
    pa = pyarrow("pyarrow")
    try:
        return pyarrow("pyarrow.parquet").ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableMedia(f"{path.name} is no Parquet file that can be read: {error}") from error


def pyarrow(module: str = "pyarrow") -> Any:
    """The module, an extra. Raises `InvalidParameter` where it is not installed; ask before anything costs."""
    with needing("parquet", "Parquet"):
        return import_module(module)


def read_columns(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of any Parquet file as they stand. Raises `UnreadableMedia`."""
    pa = pyarrow("pyarrow")
    with _open(path) as file:
        try:
            for batch in file.iter_batches(_PAGE):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UnreadableMedia(f"{path.name} is damaged: {error}") from error


def row_count(path: Path) -> int:
    """Raises `UnreadableMedia`."""
    with _open(path) as file:
        return int(file.metadata.num_rows)
