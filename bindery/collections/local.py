"""The local collection: the catalog for truth, partitions in memory and segments on disk for search. Durable, one machine."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bindery.collections import catalog, registry
from bindery.collections.allowed import Filters
from bindery.collections.catalog import StoredItem
from bindery.collections.clips import media_among
from bindery.collections.cursor import decode_cursor, encode_cursor, no_cursor
from bindery.collections.database import Database
from bindery.collections.filters import Condition
from bindery.collections.flat import Keys
from bindery.collections.model import CollectionState, Definition, Hit, Item, ItemResult, Page, PartitionState, Query, SearchResult
from bindery.collections.partition import Scope
from bindery.collections.queries import check_filter, check_one_way, check_page, check_query
from bindery.collections.records import check_vector, decode_vector, encode_metadata, merged, to_records
from bindery.collections.registry import Versions
from bindery.collections.resident import ResidentVectors
from bindery.collections.sealing import Background, Sealer
from bindery.collections.tiers import Tiers
from bindery.collections.tuning import RecentQueries, Tuner
from bindery.errors import UnknownCollection, UnknownItem
from bindery.limits import Limits
from bindery.vectors import Vectors

_KEY = re.compile(r"0|[1-9][0-9]{0,18}")
_GROUP_OVERFETCH = 4
_TRIES = 5  # a search that meets deletions between ranking and reading starts again; then it answers with what is left


@dataclass(frozen=True, slots=True)
class Segments:
    """What the collections of a store share about segments: where they are, how large they become, who builds them."""

    folder: Path
    tiers: Tiers
    background: Background


class LocalCollection:
    """Implements `Collection`. Made by `Store`."""

    def __init__(self, database: Database, collection_id: int, definition: Definition, limits: Limits, segments: Segments) -> None:
        self.id = collection_id
        self.definition = definition
        self._database = database
        self._limits = limits
        self._segments = segments
        folder = segments.folder / str(collection_id)
        self._vectors = ResidentVectors(collection_id, definition.dimension, segments.tiers, folder)
        self._sealer = Sealer(database, collection_id, definition.dimension, folder, segments.tiers)
        self._filters = Filters(collection_id)
        self._recent = RecentQueries()
        self._tuner = Tuner(database, collection_id, segments.tiers, self._recent)
        self._written = 0  # rows since the last look at what is due

    def upsert(self, items: Sequence[Item], *, media: Sequence[str] = ()) -> list[ItemResult]:
        results, latest = to_records(items, self.definition, self._limits)
        if latest:
            with self._database.writing() as db:
                at = self._next_generation(db)
                statuses = catalog.upsert(db, self.id, at, [record for _, record in latest.values()])
                if replaced := media_among(media, latest):
                    written = set(catalog.keys_of_ids(db, self.id, latest))
                    gone = [key for key in catalog.keys_of_media(db, self.id, replaced) if key not in written]
                    catalog.delete_keys(db, self.id, at, gone)
            for (index, record), status in zip(latest.values(), statuses, strict=True):
                results[index] = ItemResult(record.id, status)
            self._wrote(len(latest))
        return [results[index] for index in range(len(items))]

    def get(self, id: str) -> Item:
        with self._database.reading() as db:
            self._generation(db)
            return _to_item(self._stored(db, id))

    def patch(self, id: str, metadata: Mapping[str, Any]) -> Item:
        with self._database.writing() as db:
            self._generation(db)
            stored = self._stored(db, id)
            whole = merged(stored.metadata, metadata)
            text, fields = encode_metadata(whole, self.definition, self._limits)
            catalog.write_metadata(db, self.id, stored.key, text, fields)
            return _to_item(self._stored(db, id))

    def delete(self, *, ids: Iterable[str] | None = None, filter: Mapping[str, Any] | None = None) -> int:
        check_one_way(ids, filter)
        condition = check_filter(filter, self.definition, self._limits)
        with self._database.writing() as db:
            self._generation(db)
            if condition is not None:
                keys = catalog.keys_where(db, self.id, condition).tolist()
            else:
                keys = catalog.keys_of_media(db, self.id, ids or ())
            if keys:
                catalog.delete_keys(db, self.id, self._next_generation(db), keys)
        self._wrote(len(keys))
        return len(keys)

    def seal(self) -> None:
        self._load_segments()  # else nobody knows which are damaged
        self._tend(lambda: False, wait=True)

    def tend(self, stop: Callable[[], bool]) -> bool:
        """Seal, merge and repair what is due, search with it, and measure its recall; false when another process is at it.

        Raises `StorageFull`, `InterruptedError`.
        """
        return self._tend(stop, wait=False)

    def _tend(self, stop: Callable[[], bool], *, wait: bool) -> bool:
        self._written = 0
        self._vectors.verify(self._database, stop)
        try:
            done = self._sealer.run(self._vectors.damaged, stop, wait)
        finally:
            self._vectors.trust(self._sealer.take_written())
            self._vectors.reload(self._database)
        if wait:
            self._load_segments()
        self._tuner.run(self._vectors.segments, stop)
        self._vectors.reload(self._database)
        return done

    def _load_segments(self) -> None:
        """Have the vectors ready for searches, when there are segments."""
        with self._database.reading() as db:
            if registry.segments(db, self.id):
                self._vectors.catch_up(db, self._generation(db))

    def page(self, limit: int = 100, cursor: str | None = None, filter: Mapping[str, Any] | None = None) -> Page:
        check_page(limit, self._limits)
        after = 0 if cursor is None else _key_of(cursor)
        condition = check_filter(filter, self.definition, self._limits)
        with self._database.reading() as db:
            self._generation(db)
            stored = catalog.page(db, self.id, after, limit + 1, condition)
        more = len(stored) > limit
        return Page([_to_item(item) for item in stored[:limit]], encode_cursor(str(stored[limit - 1].key)) if more else None)

    def content_hashes(self, ids: Iterable[str]) -> dict[str, str | None]:
        with self._database.reading() as db:
            self._generation(db)
            return catalog.content_hashes(db, self.id, ids)

    def state(self) -> CollectionState:
        with self._database.reading() as db:
            self._generation(db)
            counts = catalog.counts(db, self.id)
            segments = registry.segments(db, self.id)
            probes = registry.probes(db, self.id)
            disk_bytes = round(catalog.share(db, self.id) * self._database.size_bytes)
        memory = self._vectors.memory_bytes
        partitions = {}
        for modality, rows in counts.items():
            own = [row for row in segments if row.span.modality == modality]
            size = sum(bytes for row in own for bytes, _ in row.files.values())
            recall = {one.query_modality or "any": one.recall for one in probes if one.modality == modality} if own else {}
            tier = "ivf_pq" if own else "flat"
            partitions[modality] = PartitionState(rows, tier, len(own), size, memory.get(modality, 0), recall)
            disk_bytes += size
        largest = max(partitions.values(), key=lambda one: one.rows, default=None)
        return CollectionState(
            self.definition,
            counts,
            disk_bytes,
            sum(memory.values()),
            index="flat" if largest is None else largest.tier,
            exact=not segments,
            partitions=partitions,
        )

    def __len__(self) -> int:
        with self._database.reading() as db:
            return sum(catalog.counts(db, self.id).values())

    def search(self, query: Query) -> SearchResult:
        started = time.perf_counter()
        vector = check_vector(query.vector, self.definition)
        condition = check_query(query, self.definition, self._limits)
        for attempt in range(_TRIES):
            found = self._search_once(query, vector, condition)
            if found.complete or attempt == _TRIES - 1:
                break
        plan = {
            "modalities": found.plan,
            "exact": all(line["plan"] == "exact" for line in found.plan.values()),
            "filtered": condition is not None or bool(query.exclude_ids),
            "centred": query.centred,
            "ms": round((time.perf_counter() - started) * 1e3, 3),
        }
        return SearchResult(found.hits, plan)

    def _search_once(self, query: Query, vector: Vectors, condition: Condition | None) -> _Found:
        with self._database.reading() as db:
            versions = self._versions(db)
            self._vectors.catch_up(db, versions.generation)
            allowed = None if condition is None else self._filters.allowed(db, condition, versions)
            excluded = np.array(catalog.keys_of_ids(db, self.id, query.exclude_ids) if query.exclude_ids else [], dtype=np.int64)
            scope, asked = Scope(allowed, excluded), query.query_modality or ""
            wanted = query.offset + query.top_k
            fetch = wanted if query.group_by is None else _GROUP_OVERFETCH * wanted
            while True:
                ranked, plan = self._vectors.rank(vector, fetch, query.modalities, scope, query.exact, asked, query.centred)
                kept = np.arange(len(ranked.keys))
                if query.group_by is not None:
                    kept = self._best_of_groups(db, ranked.keys, query.group_by)
                if len(kept) >= wanted or ranked.exhausted:
                    break
                fetch *= _GROUP_OVERFETCH
            scores, keys = ranked.scores[kept][query.offset : wanted], ranked.keys[kept][query.offset : wanted]
            if query.min_score is not None:
                scores, keys = scores[scores >= query.min_score], keys[scores >= query.min_score]
            stored = catalog.items_by_key(db, keys.tolist(), query.include_embedding)
        if self._recent.add(asked, vector) or self._vectors.wants_care(versions.layout):
            self._segments.background.notify(self)
        # The index may be newer than what this connection sees, by another thread's write.
        limit = np.inf if query.centred else 1.0  # stored vectors are float16, so one against itself may come out a hair above 1
        hits = [
            _to_hit(stored[key], min(limit, max(-limit, score)))
            for key, score in zip(keys.tolist(), scores.tolist(), strict=True)
            if key in stored
        ]
        return _Found(hits, plan, complete=len(hits) == len(keys))

    def _best_of_groups(self, db: sqlite3.Connection, keys: Keys, field: str) -> Keys:
        """Positions of the first row of each group, and of every row that has no group."""
        values = catalog.group_values(db, keys.tolist(), field)
        seen: set[object] = set()
        kept = []
        for position, key in enumerate(keys.tolist()):
            value = values.get(key)
            if value is None or value not in seen:
                kept.append(position)
                seen.add(value)
        return np.array(kept, dtype=np.int64)

    def _wrote(self, rows: int) -> None:
        self._written += rows
        if self._written >= self._segments.tiers.exact_rows:
            self._segments.background.notify(self)

    def _generation(self, db: sqlite3.Connection) -> int:
        return self._versions(db).generation

    def _versions(self, db: sqlite3.Connection) -> Versions:
        found = registry.versions(db, self.id)
        if found is None:
            raise self._deleted()
        return found

    def _next_generation(self, db: sqlite3.Connection) -> int:
        found = catalog.next_generation(db, self.id)
        if found is None:
            raise self._deleted()
        return found

    def _deleted(self) -> UnknownCollection:
        return UnknownCollection(f"collection {self.definition.name!r} was deleted")

    def _stored(self, db: sqlite3.Connection, id: str) -> StoredItem:
        found = catalog.item_by_id(db, self.id, id)
        if found is None:
            raise UnknownItem(f"collection {self.definition.name!r} has no item {id!r}")
        return found


@dataclass(frozen=True, slots=True)
class _Found:
    hits: list[Hit]
    plan: dict[str, dict[str, object]]
    complete: bool  # no row went away between ranking and reading


def _to_item(stored: StoredItem) -> Item:
    assert stored.data is not None, f"item {stored.id!r} was read without its vector. This is a bug."
    return Item(
        stored.id,
        stored.modality,
        decode_vector(stored.data),
        stored.uri,
        stored.start_s,
        stored.end_s,
        stored.metadata,
        stored.content_hash,
    )


def _to_hit(stored: StoredItem, score: float) -> Hit:
    embedding = None if stored.data is None else decode_vector(stored.data)
    return Hit(stored.id, score, stored.modality, stored.uri, stored.start_s, stored.end_s, stored.metadata, embedding)


def _key_of(cursor: str) -> int:
    place = decode_cursor(cursor)
    if not _KEY.fullmatch(place) or not 0 <= int(place) < 2**63:
        raise no_cursor()
    return int(place)
