"""The catalog: every SQL statement of the store (the conditions of filters come from `filters.to_sql`).

Takes and gives plain rows. A method takes a connection from ``database.reading()`` or ``database.writing()``, so that the
caller decides what belongs to one transaction.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bindery.collections import registry
from bindery.collections.clips import clip_range, is_clip_of
from bindery.collections.fields import FieldValue
from bindery.collections.filters import Compare, Condition, keys_sql, to_sql
from bindery.collections.model import Definition, LabelSet
from bindery.collections.records import Record

KEPT_GENERATIONS = 1000
"""An index that is further behind than this is loaded again instead of following each deletion."""

_LOAD_ROWS = 4096
_FEW_KEYS = 50
_ITEM = "items.key, items.id, items.modality, items.uri, items.start_s, items.end_s, items.metadata, items.content_hash"
_WITH_VECTOR = "items JOIN vectors ON vectors.item_key = items.key"
_document = json.JSONDecoder().raw_decode
"""A document that we wrote, and what is behind it: in half the time of `json.loads`, which also looks for blanks around it."""


@dataclass(frozen=True, slots=True)
class StoredItem:
    key: int
    id: str
    modality: str
    uri: str | None
    start_s: float | None
    end_s: float | None
    metadata: dict[str, Any]
    content_hash: str | None
    data: bytes | None  # the vector, when it was asked for


@dataclass(frozen=True, slots=True)
class VectorRows:
    """Some vectors of one modality, by ascending key."""

    modality: str
    keys: NDArray[np.int64]
    blobs: list[bytes]


# Collections


def insert_collection(db: sqlite3.Connection, definition: Definition) -> int:
    cursor = db.execute(
        "INSERT INTO collections (name, space, dimension, bundle, fields, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (definition.name, definition.space, definition.dimension, definition.bundle, json.dumps(dict(definition.fields)), time.time()),
    )
    return _new_key(cursor)


def find_collection(db: sqlite3.Connection, name: str) -> tuple[int, Definition] | None:
    row = db.execute("SELECT id, name, space, dimension, bundle, fields FROM collections WHERE name = ?", (name,)).fetchone()
    return None if row is None else (row[0], _definition(row[1:]))


def find_by_any_name(db: sqlite3.Connection, name: str) -> tuple[int, Definition] | None:
    """The collection of this name, or else the one that has it as an alias."""
    return find_collection(db, name) or find_collection(db, aliases(db).get(name, ""))


def aliases(db: sqlite3.Connection) -> dict[str, str]:
    """Every alias with the name of its collection."""
    return dict(db.execute("SELECT name, collection FROM aliases ORDER BY name").fetchall())


def put_alias(db: sqlite3.Connection, name: str, collection: str) -> None:
    db.execute("INSERT OR REPLACE INTO aliases (name, collection) VALUES (?, ?)", (name, collection))


def delete_alias(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("DELETE FROM aliases WHERE name = ?", (name,)).rowcount > 0


def list_collections(db: sqlite3.Connection) -> list[Definition]:
    rows = db.execute("SELECT name, space, dimension, bundle, fields FROM collections ORDER BY name")
    return [_definition(row) for row in rows]


def collection_ids(db: sqlite3.Connection) -> tuple[set[int], int]:
    """Of the collections that there are, and the highest that was ever given."""
    ids = {row[0] for row in db.execute("SELECT id FROM collections")}
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'collections'").fetchone()
    return ids, 0 if row is None else int(row[0])


def delete_collection(db: sqlite3.Connection, collection_id: int) -> None:
    # Dependent rows first: one pass over each table is faster than a cascade from every item.
    for table in ("probes", "segments", "field_values", "vectors", "items", "deletions"):
        db.execute(f"DELETE FROM {table} WHERE collection_id = ?", (collection_id,))
    db.execute("DELETE FROM collections WHERE id = ?", (collection_id,))


def generation(db: sqlite3.Connection, collection_id: int) -> int | None:
    """How often the collection's vectors were written; None when the collection is gone."""
    row = db.execute("SELECT generation FROM collections WHERE id = ?", (collection_id,)).fetchone()
    return None if row is None else int(row[0])


def next_generation(db: sqlite3.Connection, collection_id: int) -> int | None:
    row = db.execute("UPDATE collections SET generation = generation + 1 WHERE id = ? RETURNING generation", (collection_id,)).fetchone()
    return None if row is None else int(row[0])


# Writing items


def upsert(db: sqlite3.Connection, collection_id: int, at: int, records: Sequence[Record]) -> list[Literal["created", "updated"]]:
    """Write records with distinct ids as generation ``at``; what each was."""
    present = _keys_by_id(db, collection_id, [record.id for record in records])
    now = time.time()
    statuses: list[Literal["created", "updated"]] = []
    for record in records:
        known = present.get(record.id)
        if known is not None and known[1] == record.modality:
            key = known[0]
            _update(db, key, record, at, now)
        else:
            if known is not None:  # of another modality: its vector belongs to another index
                _remove(db, collection_id, at, [known[0]])
            key = _insert(db, collection_id, record, at, now)
        _write_fields(db, collection_id, key, record.fields)
        statuses.append("created" if known is None else "updated")
    return statuses


def write_metadata(db: sqlite3.Connection, collection_id: int, key: int, metadata: str, fields: Mapping[str, FieldValue]) -> None:
    db.execute("UPDATE items SET metadata = ?, updated_at = ? WHERE key = ?", (metadata, time.time(), key))
    db.execute("UPDATE collections SET revision = revision + 1 WHERE id = ?", (collection_id,))
    db.execute("DELETE FROM field_values WHERE item_key = ?", (key,))
    _write_fields(db, collection_id, key, fields)


def delete_keys(db: sqlite3.Connection, collection_id: int, at: int, keys: Sequence[int]) -> None:
    _remove(db, collection_id, at, keys)
    oldest = registry.oldest_built_at(db, collection_id)
    upto = at - KEPT_GENERATIONS if oldest is None else min(oldest, at - KEPT_GENERATIONS)
    db.execute("DELETE FROM deletions WHERE collection_id = ? AND generation <= ?", (collection_id, upto))


# Reading items


def keys_of_ids(db: sqlite3.Connection, collection_id: int, ids: Iterable[str]) -> list[int]:
    return [key for key, _ in _keys_by_id(db, collection_id, list(ids)).values()]


def every_key(db: sqlite3.Connection, collection_id: int) -> list[int]:
    return [row[0] for row in db.execute("SELECT key FROM items WHERE collection_id = ?", (collection_id,))]


def keys_of_media(db: sqlite3.Connection, collection_id: int, ids: Iterable[str]) -> list[int]:
    """Keys of the items with these ids, and of all clips of media with these ids."""
    keys = set(keys_of_ids(db, collection_id, ids := list(ids)))
    return sorted(keys.union(key for key, _, _ in _clips(db, collection_id, ids)))


def keys_where(db: sqlite3.Connection, collection_id: int, condition: Condition) -> NDArray[np.int64]:
    text, parameters = to_sql(condition, collection_id)
    rows = db.execute(f"SELECT key FROM items WHERE collection_id = ? AND {text}", (collection_id, *parameters))
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def keys_passing(db: sqlite3.Connection, collection_id: int, compare: Compare) -> NDArray[np.int64]:
    """In no order. As one text, since a hundred thousand rows one by one take longer than all that SQLite does for them."""
    query, parameters = keys_sql(compare, collection_id)
    (text,) = db.execute(f"SELECT group_concat(key) FROM ({query})", parameters).fetchone()
    return np.fromstring(text or "", dtype=np.int64, sep=",")


def content_hashes(db: sqlite3.Connection, collection_id: int, ids: Iterable[str]) -> dict[str, str | None]:
    """The hash of each id that is there. For a medium stored as clips: that of its clips, None when they do not agree."""
    wanted = list(ids)
    rows = db.execute(
        "SELECT id, content_hash FROM items WHERE collection_id = ? AND id IN (SELECT value FROM json_each(?))",
        (collection_id, json.dumps(wanted)),
    )
    found: dict[str, str | None] = dict(rows.fetchall())
    for _, medium, content_hash in _clips(db, collection_id, wanted):
        found[medium] = content_hash if found.get(medium, content_hash) == content_hash else None
    return found


def item_by_id(db: sqlite3.Connection, collection_id: int, id: str) -> StoredItem | None:
    row = db.execute(
        f"SELECT {_ITEM}, vectors.data FROM {_WITH_VECTOR} WHERE items.collection_id = ? AND items.id = ?",
        (collection_id, id),
    ).fetchone()
    return None if row is None else _item(row)


def items_by_key(db: sqlite3.Connection, keys: Iterable[int], with_vector: bool) -> dict[int, StoredItem]:
    source = _WITH_VECTOR if with_vector else "items"
    data = "vectors.data" if with_vector else "NULL"
    wanted = list(keys)
    few = len(wanted) <= _FEW_KEYS  # bound one by one they are found in half the time; each number of them is a statement of its own
    which = ",".join("?" * len(wanted)) if few else "SELECT value FROM json_each(?)"
    rows = db.execute(f"SELECT {_ITEM}, {data} FROM {source} WHERE items.key IN ({which})", wanted if few else (json.dumps(wanted),))
    return {row[0]: _item(row) for row in rows}


def page(db: sqlite3.Connection, collection_id: int, after: int, limit: int, condition: Condition | None) -> list[StoredItem]:
    """Up to ``limit`` items with their vectors, by ascending key, those after the key ``after``."""
    text, parameters = ("1", []) if condition is None else to_sql(condition, collection_id)
    rows = db.execute(
        f"SELECT {_ITEM}, vectors.data FROM {_WITH_VECTOR} "
        f"WHERE items.collection_id = ? AND items.key > ? AND {text} ORDER BY items.key LIMIT ?",
        (collection_id, after, *parameters, limit),
    )
    return [_item(row) for row in rows]


def group_values(db: sqlite3.Connection, keys: Iterable[int], field: str) -> dict[int, FieldValue]:
    """The value of ``uri``, of ``modality`` or of a declared field, for those of ``keys`` that have one."""
    wanted = json.dumps(list(keys))
    if field == "uri":
        rows = db.execute("SELECT key, uri FROM items WHERE key IN (SELECT value FROM json_each(?)) AND uri IS NOT NULL", (wanted,))
    elif field == "modality":
        rows = db.execute("SELECT key, modality FROM items WHERE key IN (SELECT value FROM json_each(?))", (wanted,))
    else:
        rows = db.execute(
            "SELECT item_key, value FROM field_values WHERE item_key IN (SELECT value FROM json_each(?)) AND name = ?",
            (wanted, field),
        )
    return dict(rows.fetchall())


def counts(db: sqlite3.Connection, collection_id: int) -> dict[str, int]:
    rows = db.execute("SELECT modality, count(*) FROM items WHERE collection_id = ? GROUP BY modality ORDER BY modality", (collection_id,))
    return dict(rows.fetchall())


def share(db: sqlite3.Connection, collection_id: int) -> float:
    """The part of the catalog file that is this collection's, judged by the bytes of its vectors; 0 when it is empty."""
    rows = db.execute(
        "SELECT id, dimension * (SELECT count(*) FROM items WHERE collection_id = collections.id) FROM collections",
    )
    weights = dict(rows.fetchall())
    return float(weights.get(collection_id, 0) / (sum(weights.values()) or 1))


# What changed, for indexes in memory


def vectors_since(db: sqlite3.Connection, collection_id: int, since: int) -> Iterator[VectorRows]:
    """Every vector written after generation ``since``, in pieces of one modality each, by ascending key."""
    rows = db.execute(
        "SELECT modality, item_key, data FROM vectors WHERE collection_id = ? AND generation > ? ORDER BY item_key",
        (collection_id, since),
    )
    while piece := rows.fetchmany(_LOAD_ROWS):
        for modality in sorted({row[0] for row in piece}):
            own = [row for row in piece if row[0] == modality]
            yield VectorRows(modality, np.fromiter((row[1] for row in own), dtype=np.int64), [row[2] for row in own])


def deleted_since(db: sqlite3.Connection, collection_id: int, since: int) -> NDArray[np.int64]:
    rows = db.execute("SELECT item_key FROM deletions WHERE collection_id = ? AND generation > ?", (collection_id, since))
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


# Label sets


def put_label_set(db: sqlite3.Connection, label_set: LabelSet) -> None:
    templates = None if label_set.templates is None else json.dumps(label_set.templates)
    db.execute(
        "INSERT OR REPLACE INTO label_sets (name, labels, templates, updated_at) VALUES (?, ?, ?, ?)",
        (label_set.name, json.dumps(label_set.labels), templates, time.time()),
    )


def label_sets(db: sqlite3.Connection, name: str | None = None) -> list[LabelSet]:
    """All of them by name, or the one called ``name``."""
    rows = db.execute("SELECT name, labels, templates FROM label_sets WHERE ?1 IS NULL OR name = ?1 ORDER BY name", (name,))
    return [LabelSet(row[0], tuple(json.loads(row[1])), None if row[2] is None else tuple(json.loads(row[2]))) for row in rows]


def delete_label_set(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("DELETE FROM label_sets WHERE name = ?", (name,)).rowcount > 0


def _clips(db: sqlite3.Connection, collection_id: int, media: Iterable[str]) -> Iterator[tuple[int, str, str | None]]:
    """(key, medium, content hash) of every clip of these media."""
    for medium in media:
        rows = db.execute(
            "SELECT key, id, content_hash FROM items WHERE collection_id = ? AND id >= ? AND id < ?", (collection_id, *clip_range(medium))
        ).fetchall()
        yield from ((key, medium, content_hash) for key, id, content_hash in rows if is_clip_of(id, medium))


def _keys_by_id(db: sqlite3.Connection, collection_id: int, ids: list[str]) -> dict[str, tuple[int, str]]:
    rows = db.execute(
        "SELECT id, key, modality FROM items WHERE collection_id = ? AND id IN (SELECT value FROM json_each(?))",
        (collection_id, json.dumps(ids)),
    )
    return {row[0]: (row[1], row[2]) for row in rows}


def _insert(db: sqlite3.Connection, collection_id: int, record: Record, at: int, now: float) -> int:
    cursor = db.execute(
        "INSERT INTO items (collection_id, id, modality, uri, start_s, end_s, metadata, content_hash, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            collection_id, record.id, record.modality, record.uri, record.start_s, record.end_s,
            record.metadata, record.content_hash, now, now,
        ),
    )  # fmt: skip
    key = _new_key(cursor)
    db.execute(
        "INSERT INTO vectors (item_key, collection_id, generation, modality, data) VALUES (?, ?, ?, ?, ?)",
        (key, collection_id, at, record.modality, record.data),
    )
    return key


def _update(db: sqlite3.Connection, key: int, record: Record, at: int, now: float) -> None:
    db.execute(
        "UPDATE items SET uri = ?, start_s = ?, end_s = ?, metadata = ?, content_hash = ?, updated_at = ? WHERE key = ?",
        (record.uri, record.start_s, record.end_s, record.metadata, record.content_hash, now, key),
    )
    db.execute("UPDATE vectors SET generation = ?, data = ? WHERE item_key = ?", (at, record.data, key))
    db.execute("DELETE FROM field_values WHERE item_key = ?", (key,))


def _write_fields(db: sqlite3.Connection, collection_id: int, key: int, fields: Mapping[str, FieldValue]) -> None:
    rows = [(collection_id, name, value, key) for name, value in fields.items()]
    db.executemany("INSERT INTO field_values (collection_id, name, value, item_key) VALUES (?, ?, ?, ?)", rows)


def _remove(db: sqlite3.Connection, collection_id: int, at: int, keys: Sequence[int]) -> None:
    db.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in keys])
    rows = [(collection_id, at, key) for key in keys]
    db.executemany("INSERT INTO deletions (collection_id, generation, item_key) VALUES (?, ?, ?)", rows)


def _new_key(cursor: sqlite3.Cursor) -> int:
    key = cursor.lastrowid
    assert key is not None, "an INSERT gave no row key. This is a bug."
    return key


def _definition(row: Sequence[Any]) -> Definition:
    name, space, dimension, bundle, fields = row
    return Definition(name, space, dimension, bundle, json.loads(fields))


def _item(row: Sequence[Any]) -> StoredItem:
    key, id, modality, uri, start_s, end_s, metadata, content_hash, data = row
    return StoredItem(key, id, modality, uri, start_s, end_s, _document(metadata)[0], content_hash, data)
