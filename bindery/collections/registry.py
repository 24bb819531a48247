"""The registry: every SQL statement about segments and about the vectors that they stand for."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_READ_ROWS = 4096
_DENSE = 2
"""Keys that are wanted among so many are read as a range."""


@dataclass(frozen=True, slots=True)
class Versions:
    """How often a collection was changed: its vectors and items, its segments, its metadata alone."""

    generation: int
    layout: int
    revision: int


@dataclass(frozen=True, slots=True)
class Span:
    """The vectors of a modality that were written after one generation, up to another (None: whatever comes)."""

    modality: str
    after: int
    upto: int | None


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment as registered. ``files``: name → (bytes, SHA-256 in hex)."""

    id: int
    span: Span
    built_at: int
    folder: str
    rows: int
    files: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Built:
    """A segment that lies on disk and is not registered yet."""

    span: Span
    built_at: int
    folder: str
    rows: int
    files: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Probed:
    """What was measured for looking for ``modality`` with ``query_modality`` ("" : queries that did not say what they are)."""

    modality: str
    query_modality: str
    target: float
    share: float
    depth: int  # for 10 hits; 0: no depth is enough
    depth_100: int
    recall: float
    bound: float
    queries: int
    rows: int


def versions(db: sqlite3.Connection, collection_id: int) -> Versions | None:
    """None when the collection is gone."""
    row = db.execute("SELECT generation, layout, revision FROM collections WHERE id = ?", (collection_id,)).fetchone()
    return None if row is None else Versions(*row)


def key_range(db: sqlite3.Connection, collection_id: int) -> tuple[int, int]:
    """The lowest and the highest row key; (0, -1) of a collection without items."""
    lowest, highest = (
        db.execute(f"SELECT {extreme}(key) FROM items WHERE collection_id = ?", (collection_id,)).fetchone()[0]
        for extreme in ("min", "max")
    )
    return (0, -1) if lowest is None else (int(lowest), int(highest))


def segments(db: sqlite3.Connection, collection_id: int, modality: str | None = None) -> list[SegmentRow]:
    """By modality, then oldest first."""
    rows = db.execute(
        "SELECT id, modality, after_generation, upto_generation, built_at, folder, rows, files FROM segments "
        "WHERE collection_id = ?1 AND (?2 IS NULL OR modality = ?2) ORDER BY modality, after_generation",
        (collection_id, modality),
    )
    return [
        SegmentRow(
            id,
            Span(name, after, upto),
            built_at,
            folder,
            count,
            {file: (one["bytes"], one["sha256"]) for file, one in json.loads(files).items()},
        )
        for id, name, after, upto, built_at, folder, count, files in rows
    ]


def replace(db: sqlite3.Connection, collection_id: int, old: Sequence[SegmentRow], new: Built | None) -> bool:
    """Register ``new`` in place of ``old``, all of it or nothing. False when one of ``old`` is not registered any more."""
    known = {row.id for row in segments(db, collection_id)}
    if versions(db, collection_id) is None or not {row.id for row in old} <= known:
        return False
    db.executemany("DELETE FROM segments WHERE id = ?", [(row.id,) for row in old])
    if new is not None:
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in new.files.items()}
        db.execute(
            "INSERT INTO segments (collection_id, modality, after_generation, upto_generation, built_at, folder, rows, files) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                collection_id, new.span.modality, new.span.after, new.span.upto, new.built_at, new.folder, new.rows, json.dumps(files),
            ),
        )  # fmt: skip
    db.execute("UPDATE collections SET layout = layout + 1 WHERE id = ?", (collection_id,))
    return True


def oldest_built_at(db: sqlite3.Connection, collection_id: int) -> int | None:
    """Deletions up to this generation are in no segment's files."""
    row = db.execute("SELECT min(built_at) FROM segments WHERE collection_id = ?", (collection_id,)).fetchone()
    return None if row[0] is None else int(row[0])


def put_probe(db: sqlite3.Connection, collection_id: int, probed: Probed) -> None:
    """In place of an older one of the same pair; nothing when the collection is gone."""
    if versions(db, collection_id) is not None:
        db.execute(
            "INSERT OR REPLACE INTO probes (collection_id, modality, query_modality, target, share, depth, depth_100, recall, bound, "
            "queries, rows, probed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                collection_id, probed.modality, probed.query_modality, probed.target, probed.share, probed.depth, probed.depth_100,
                probed.recall, probed.bound, probed.queries, probed.rows, time.time(),
            ),
        )  # fmt: skip


def probes(db: sqlite3.Connection, collection_id: int) -> list[Probed]:
    """By modality, then by what was asked with."""
    rows = db.execute(
        "SELECT modality, query_modality, target, share, depth, depth_100, recall, bound, queries, rows FROM probes "
        "WHERE collection_id = ? ORDER BY modality, query_modality",
        (collection_id,),
    )
    return [Probed(*row) for row in rows]


def modalities(db: sqlite3.Connection, collection_id: int) -> list[str]:
    """Those that have vectors."""
    found: list[str] = []
    while True:  # one step in the index for each, instead of a walk over all rows
        row = db.execute(
            "SELECT modality FROM vectors WHERE collection_id = ? AND modality > ? ORDER BY modality LIMIT 1",
            (collection_id, found[-1] if found else ""),
        ).fetchone()
        if row is None:
            return found
        found.append(row[0])


def count(db: sqlite3.Connection, collection_id: int, span: Span) -> int:
    text, parameters = _within(collection_id, span)
    return int(db.execute(f"SELECT count(*) FROM vectors WHERE {text}", parameters).fetchone()[0])


def keys(db: sqlite3.Connection, collection_id: int, span: Span) -> NDArray[np.int64]:
    """Ascending."""
    text, parameters = _within(collection_id, span)
    rows = db.execute(f"SELECT item_key FROM vectors WHERE {text}", parameters)
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))


def vectors(
    db: sqlite3.Connection, collection_id: int, span: Span, wanted: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], list[bytes]]]:
    """Those of ``wanted``, which ascend, that are in the span: keys and stored vectors, some thousands at a time."""
    text, parameters = _within(collection_id, span)
    for start in range(0, len(wanted), _READ_ROWS):
        which_of: list[object]
        some = wanted[start : start + _READ_ROWS]
        lowest, highest = int(some[0]), int(some[-1])
        if highest - lowest < _DENSE * len(some):  # walking over the few others costs less than looking each one up
            which, which_of = "item_key BETWEEN ? AND ?", [lowest, highest]
        else:
            which, which_of = "item_key IN (SELECT value FROM json_each(?))", [json.dumps(some.tolist())]
        rows = db.execute(
            f"SELECT item_key, data FROM vectors NOT INDEXED WHERE {which} AND {text} ORDER BY item_key", (*which_of, *parameters)
        ).fetchall()
        found = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        mine = np.isin(found, some)
        if not mine.all():
            rows, found = [row for row, one in zip(rows, mine, strict=True) if one], found[mine]
        yield found, [row[1] for row in rows]


def _within(collection_id: int, span: Span) -> tuple[str, list[object]]:
    upto = 2**63 - 1 if span.upto is None else span.upto
    return "collection_id = ? AND modality = ? AND generation > ? AND generation <= ?", [collection_id, span.modality, span.after, upto]
