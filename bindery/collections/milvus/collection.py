"""A collection in Milvus: truth and index are there, so are its limits; see docs/milvus.md for what differs from `local`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bindery.collections.clips import clip_range, is_clip_of, media_among
from bindery.collections.cursor import decode_cursor, encode_cursor
from bindery.collections.milvus.connection import MOST_ROWS, Connection, Row
from bindery.collections.milvus.expressions import EVERYTHING, all_of, among, text, to_expression
from bindery.collections.milvus.rows import (
    KNOWN,
    TEXT_BYTES,
    bytes_of,
    columns_of,
    filter_columns,
    metadata_columns,
    to_hit,
    to_item,
    to_row,
)
from bindery.collections.model import CollectionState, Definition, Item, ItemResult, Page, Query, SearchResult
from bindery.collections.queries import check_filter, check_one_way, check_page, check_query
from bindery.collections.records import check_vector, encode_metadata, merged, to_records
from bindery.errors import NotOffered, UnknownCollection, UnknownItem
from bindery.limits import MIB, Limits
from bindery.vectors import Vectors

_EXACT = frozenset({"FLAT", "GPU_BRUTE_FORCE"})
_REQUEST_BYTES = 16 * MIB  # of rows in one request; Milvus takes 64
_IDS_AT_ONCE = 1000
_MEDIA_AT_ONCE = 100
_GROUP_OVERFETCH = 4


@dataclass(frozen=True, slots=True)
class Index:
    """How Milvus indexes the vectors of a collection; ``search`` is passed with each search."""

    kind: str = "FLAT"
    build: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        return self.kind in _EXACT


class MilvusCollection:
    """Implements `Collection`. Made by `MilvusStore`; ``place`` is the name of its collection in Milvus."""

    def __init__(self, milvus: Connection, place: str, definition: Definition, index: Index, limits: Limits) -> None:
        self.definition = definition
        self.place = place
        self._milvus = milvus
        self._index = index
        self._limits = limits.model_copy(update={"metadata_bytes": min(limits.metadata_bytes, TEXT_BYTES)})
        self._columns = filter_columns(definition)
        self._all = (*KNOWN, *columns_of(definition.fields).values(), "vector")
        self._patching = threading.Lock()

    def upsert(self, items: Sequence[Item], *, media: Sequence[str] = ()) -> list[ItemResult]:
        results, latest = to_records(items, self.definition, self._limits)
        with self._there():
            if latest:
                known = self._known(latest)
                for rows in _requests(to_row(record, self.definition) for _, record in latest.values()):
                    self._milvus.upsert(self.place, rows)
                if replaced := media_among(
                    media, latest
                ):  # after what takes their place is there: whoever stops in between leaves too much, not too little
                    self._remove(id for id, _ in self._of_media(replaced) if id not in latest)
                for index, record in latest.values():
                    results[index] = ItemResult(record.id, "updated" if record.id in known else "created")
            elif not self._milvus.has_collection(self.place):
                raise UnknownCollection("Milvus has no such collection")
        return [results[index] for index in range(len(items))]

    def get(self, id: str) -> Item:
        return to_item(self._row(id))

    def patch(self, id: str, metadata: Mapping[str, Any]) -> Item:
        with self._patching:
            row = self._row(id)
            whole = merged(to_item(row).metadata, metadata)
            encoded = encode_metadata(whole, self.definition, self._limits)
            row.update(metadata_columns(*encoded, self.definition))
            with self._there():
                self._milvus.upsert(self.place, [row])
        return to_item(row)

    def delete(self, *, ids: Iterable[str] | None = None, filter: Mapping[str, Any] | None = None) -> int:
        check_one_way(ids, filter)
        condition = check_filter(filter, self.definition, self._limits)
        with self._there():
            if condition is None:
                return self._remove(id for id, _ in self._of_media(list(ids or ())))
            expression, gone = to_expression(condition, self._columns), 0
            while rows := self._milvus.rows(self.place, expression, ["id"]):
                gone += self._remove(row["id"] for row in rows)
            return gone

    def page(self, limit: int = 100, cursor: str | None = None, filter: Mapping[str, Any] | None = None) -> Page:
        check_page(limit, self._limits)
        after = "" if cursor is None else f"id > {text(decode_cursor(cursor))}"
        condition = check_filter(filter, self.definition, self._limits)
        where = "" if condition is None else to_expression(condition, self._columns)
        with self._there():
            rows = self._milvus.rows(self.place, all_of(after, where) or EVERYTHING, self._all, limit + 1)
        return Page([to_item(row) for row in rows[:limit]], encode_cursor(rows[limit - 1]["id"]) if len(rows) > limit else None)

    def content_hashes(self, ids: Iterable[str]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        wanted = list(ids)
        with self._there():
            for part in _parts(wanted, _IDS_AT_ONCE):
                rows = self._milvus.rows(self.place, among("id", part), ["id", "content_hash"])
                found.update((row["id"], row["content_hash"]) for row in rows)
            for row, medium in self._clips(wanted, ["id", "content_hash"]):
                hash = row["content_hash"]
                found[medium] = hash if found.get(medium, hash) == hash else None
        return found

    def state(self) -> CollectionState:
        counts: dict[str, int] = {}
        with self._there():
            # Milvus has no way to ask which modalities there are, but for an item of one that is not known yet.
            while rows := self._milvus.rows(self.place, f"not ({among('modality', counts)})" if counts else EVERYTHING, ["modality"], 1):
                modality = rows[0]["modality"]
                counts[modality] = self._milvus.count(self.place, among("modality", [modality]))
        return CollectionState(
            self.definition,
            {modality: counts[modality] for modality in sorted(counts)},
            disk_bytes=None,
            memory_bytes=None,
            index=self._index.kind.lower(),
            exact=self._index.exact,
            backend="milvus",
        )

    def __len__(self) -> int:
        with self._there():
            return self._milvus.count(self.place)

    def seal(self) -> None:
        """Milvus seals and merges by itself."""

    def search(self, query: Query) -> SearchResult:
        started = time.perf_counter()
        vector = check_vector(query.vector, self.definition)
        condition = check_query(query, self.definition, self._limits)
        if query.exact and not self._index.exact:
            raise NotOffered(
                f"collection {self.definition.name!r} has index {self._index.kind} in Milvus, which cannot be told to compare with "
                "everything: copy it into one that is made under BINDERY_MILVUS_INDEX=FLAT"
            )
        if query.centred:
            raise NotOffered("collections in Milvus cannot be searched centred: its scores are cosines. Search one modality at a time")
        where = all_of(
            "" if query.modalities is None else among("modality", query.modalities),
            "" if condition is None else to_expression(condition, self._columns),
            f"not ({among('id', query.exclude_ids)})" if query.exclude_ids else "",
        )
        with self._there():
            found, complete = self._ranked(query, vector, where)
        hits = [to_hit(row, score, query.include_embedding) for score, row in found if query.min_score is None or score >= query.min_score]
        plan = {
            "store": "milvus",
            "index": self._index.kind.lower(),
            "exact": self._index.exact and complete,
            "filtered": condition is not None or bool(query.exclude_ids),
            "ms": round((time.perf_counter() - started) * 1e3, 3),
        }
        return SearchResult(hits, plan)

    def _ranked(self, query: Query, vector: Vectors, where: str) -> tuple[list[tuple[float, Row]], bool]:
        """The query's page of scores and rows, and whether everything that could be in it was looked at."""
        columns = (*KNOWN, "vector") if query.include_embedding else KNOWN
        if query.group_by is None:
            return self._nearest(vector, where, columns, query.top_k, query.offset), True
        wanted = query.offset + query.top_k
        fetch = min(_GROUP_OVERFETCH * wanted, MOST_ROWS)
        column = self._columns[query.group_by]
        while True:
            near = self._nearest(vector, where, ["id", column], fetch, 0)
            kept = _best_of_groups(near, column)
            if len(kept) >= wanted or len(near) < fetch or fetch == MOST_ROWS:
                break
            fetch = min(fetch * _GROUP_OVERFETCH, MOST_ROWS)
        page = kept[query.offset : wanted]
        rows = (
            {row["id"]: row for row in self._milvus.rows(self.place, among("id", (row["id"] for _, row in page)), columns)} if page else {}
        )
        # One that was deleted between the two questions is left out.
        return [(score, rows[row["id"]]) for score, row in page if row["id"] in rows], len(kept) >= wanted or len(near) < fetch

    def _nearest(self, vector: Vectors, where: str, columns: Sequence[str], limit: int, offset: int) -> list[tuple[float, Row]]:
        return self._milvus.search(self.place, vector, where, columns, limit, offset, dict(self._index.search))

    def _row(self, id: str) -> Row:
        with self._there():
            rows = self._milvus.rows(self.place, among("id", [id]), self._all, 1)
        if not rows:
            raise UnknownItem(f"collection {self.definition.name!r} has no item {id!r}")
        return rows[0]

    def _known(self, ids: Iterable[str]) -> set[str]:
        return {row["id"] for part in _parts(ids, _IDS_AT_ONCE) for row in self._milvus.rows(self.place, among("id", part), ["id"])}

    def _of_media(self, media: Sequence[str]) -> set[tuple[str, str]]:
        """Id and medium of the items with these ids, and of all clips of media with these ids."""
        return {(id, id) for id in self._known(media)} | {(row["id"], medium) for row, medium in self._clips(media, ["id"])}

    def _clips(self, media: Iterable[str], columns: Sequence[str]) -> Iterator[tuple[Row, str]]:
        """Row and medium of every clip of these media."""
        for part in _parts(media, _MEDIA_AT_ONCE):
            ranges = " or ".join(f"(id >= {text(low)} and id < {text(high)})" for low, high in map(clip_range, part))
            after = ""
            while True:
                rows = self._milvus.rows(self.place, all_of(ranges, after), columns)
                yield from ((row, medium) for row in rows for medium in part if is_clip_of(row["id"], medium))
                if len(rows) < MOST_ROWS:
                    break
                after = f"id > {text(rows[-1]['id'])}"

    def _remove(self, ids: Iterable[str]) -> int:
        gone = 0
        for part in _parts(ids, _IDS_AT_ONCE):
            self._milvus.delete(self.place, among("id", part))
            gone += len(part)
        return gone

    @contextmanager
    def _there(self) -> Iterator[None]:
        try:
            yield
        except UnknownCollection as error:
            raise UnknownCollection(f"collection {self.definition.name!r} was deleted") from error


def _best_of_groups(found: Sequence[tuple[float, Row]], column: str) -> list[tuple[float, Row]]:
    """The first row of each group, and every row that has no group."""
    seen: set[object] = set()
    kept = []
    for score, row in found:
        value = row[column]
        if value is None or value not in seen:
            kept.append((score, row))
            seen.add(value)
    return kept


def _parts(values: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(values)
    while part := list(itertools.islice(rest, size)):
        yield part


def _requests(rows: Iterable[Row]) -> Iterator[list[Row]]:
    request: list[Row] = []
    size = 0
    for row in rows:
        own = bytes_of(row)
        if request and size + own > _REQUEST_BYTES:
            yield request
            request, size = [], 0
        request.append(row)
        size += own
    if request:
        yield request
