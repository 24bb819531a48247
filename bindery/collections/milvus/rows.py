"""A record as a row of Milvus: one column for each thing that is known of an item, and one for each declared field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pymilvus import CollectionSchema, DataType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from bindery.collections.fields import FieldValue
from bindery.collections.milvus.connection import Row
from bindery.collections.model import Definition, FieldType, Hit, Item
from bindery.collections.records import ID_BYTES, Record, decode_vector
from bindery.errors import InvalidParameter
from bindery.vectors import Vectors

TEXT_BYTES = 65_535
"""The longest text that a column holds."""

MOST_FIELDS = 48
"""Of Milvus' 64 columns; the others are the items' own, and some are left for later."""

MOST_DIMENSIONS = 32_768

KNOWN = ("id", "modality", "uri", "start_s", "end_s", "metadata", "content_hash")
_BUILTIN = {"id": "id", "modality": "modality", "uri": "uri", "start": "start_s", "end": "end_s"}
_TYPES: Mapping[FieldType, DataType] = {
    "keyword": DataType.VARCHAR,
    "integer": DataType.INT64,
    "number": DataType.DOUBLE,
    "boolean": DataType.BOOL,
    "datetime": DataType.INT64,  # microseconds since 1970, as everywhere
}
_NO_NAME = re.compile(r"[^A-Za-z0-9_]")


def columns_of(fields: Mapping[str, FieldType]) -> dict[str, str]:
    """The column of each declared field. Milvus takes no `.` and `-` in a name, so the position makes it unique."""
    return {name: f"f{index}_{_NO_NAME.sub('_', name)}" for index, name in enumerate(fields)}


def filter_columns(definition: Definition) -> dict[str, str]:
    """The column of everything that a filter may name."""
    return {**_BUILTIN, **columns_of(definition.fields)}


def schema_of(definition: Definition) -> CollectionSchema:
    """Raises `InvalidParameter` for more fields than there are columns for."""
    if len(definition.fields) > MOST_FIELDS:
        raise InvalidParameter(
            f"{len(definition.fields)} fields are declared; in Milvus at most {MOST_FIELDS} are taken", pointer="/fields"
        )
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=ID_BYTES)
    # Items of one modality lie together, so that a search for one leaves the others alone.
    schema.add_field("modality", DataType.VARCHAR, max_length=64, is_partition_key=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=definition.dimension)
    schema.add_field("uri", DataType.VARCHAR, max_length=4096, nullable=True)
    schema.add_field("start_s", DataType.DOUBLE, nullable=True)
    schema.add_field("end_s", DataType.DOUBLE, nullable=True)
    schema.add_field("metadata", DataType.VARCHAR, max_length=TEXT_BYTES)
    schema.add_field("content_hash", DataType.VARCHAR, max_length=ID_BYTES, nullable=True)
    for name, column in columns_of(definition.fields).items():
        wanted = _TYPES[definition.fields[name]]
        schema.add_field(column, wanted, nullable=True, **({"max_length": TEXT_BYTES} if wanted is DataType.VARCHAR else {}))
    return schema


def indexes_of(index: str, parameters: Mapping[str, Any]) -> IndexParams:
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type=index, metric_type="IP", params=dict(parameters))
    return indexes


def to_row(record: Record, definition: Definition) -> Row:
    return {
        "id": record.id,
        "modality": record.modality,
        "vector": decode_vector(record.data),  # as `local` keeps it, so that both give the same scores
        "uri": record.uri,
        "start_s": record.start_s,
        "end_s": record.end_s,
        "content_hash": record.content_hash,
        **metadata_columns(record.metadata, record.fields, definition),
    }


def metadata_columns(metadata: str, fields: Mapping[str, FieldValue], definition: Definition) -> Row:
    return {"metadata": metadata, **{column: fields.get(name) for name, column in columns_of(definition.fields).items()}}


def to_item(row: Row) -> Item:
    return Item(
        row["id"], row["modality"], _vector(row), row["uri"], row["start_s"], row["end_s"], json.loads(row["metadata"]), row["content_hash"]
    )


def to_hit(row: Row, score: float, with_vector: bool) -> Hit:
    # As in `local`, a vector against itself may come out a hair above 1.
    return Hit(
        row["id"],
        min(1.0, max(-1.0, score)),
        row["modality"],
        row["uri"],
        row["start_s"],
        row["end_s"],
        json.loads(row["metadata"]),
        _vector(row) if with_vector else None,
    )


def bytes_of(row: Row) -> int:
    """About what a row takes in a request."""
    texts = sum(len(value) for value in row.values() if isinstance(value, str))
    return 4 * texts + 4 * len(row["vector"]) + 16 * len(row)  # a character has at most four bytes


def _vector(row: Row) -> Vectors:
    return np.asarray(row["vector"], dtype=np.float32)
