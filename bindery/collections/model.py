"""The nouns of search, and what every collection promises. No storage here."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bindery.errors import BinderyError, SpaceMismatch
from bindery.vectors import Vectors

FieldType = Literal["keyword", "integer", "number", "boolean", "datetime"]
FIELD_TYPES: tuple[FieldType, ...] = ("keyword", "integer", "number", "boolean", "datetime")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a collection is, fixed when it is created. ``fields`` are the metadata names that filters may use."""

    name: str
    space: str
    dimension: int
    bundle: str
    fields: Mapping[str, FieldType] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON says it."""
        return {"name": self.name, "space": self.space, "dimension": self.dimension, "bundle": self.bundle, "fields": dict(self.fields)}


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One vector with what is known about it. ``vector`` is ``(d,)`` float32; it is normalised when stored."""

    id: str
    modality: str
    vector: Vectors
    uri: str | None = None
    start: float | None = None  # seconds into the media at `uri`
    end: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str | None = None
    """Digest of all that decided the vector, chosen by the writer; lets it skip what has not changed."""


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item of an upsert.

    ``superseded``: valid, but a later item of the same request has the same id and was stored instead.
    """

    id: str
    status: Literal["created", "updated", "superseded", "failed"]
    error: BinderyError | None = None
    clips: tuple[ItemResult, ...] = ()
    """What became of each clip, when ``id`` is a medium that was cut into clips."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One search. ``vector`` is ``(d,)``, of any length but zero."""

    vector: Vectors
    top_k: int = 10
    modalities: tuple[str, ...] | None = None  # which to return; None: all
    filter: Mapping[str, Any] | None = None
    group_by: str | None = None  # `uri`, `modality` or a declared field: the best hit of each value; items without one stand alone
    min_score: float | None = None
    offset: int = 0
    include_embedding: bool = False
    exclude_ids: tuple[str, ...] = ()
    query_modality: str | None = None  # what the vector was made from, where that is known; decides how deep an index must look
    exact: bool = False  # compare with every vector that may be returned, however many there are
    centred: bool = False  # scores that compare between modalities, see `Hit`


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """``score`` is the cosine with the query, in [-1, 1].

    In a centred search it is the cosine without what all vectors of the hit's modality have in common: about 0 for what has nothing
    to do with the query, whatever it is. It is on no fixed scale: with a few odd vectors it may pass 1.
    """

    id: str
    score: float
    modality: str
    uri: str | None
    start: float | None
    end: float | None
    metadata: Mapping[str, Any]
    embedding: Vectors | None = None  # (d,) float32, when asked for


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first (equal scores: the older item first), and how they were found."""

    hits: list[Hit]
    plan: dict[str, Any]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


@dataclass(frozen=True, slots=True)
class Page:
    """Items in order of creation. ``cursor`` continues after the last one; None at the end."""

    items: list[Item]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The vectors of one modality in figures. ``memory_bytes`` 0: not in use yet. ``disk_bytes``: of its segments.

    ``recall``: recall@10 by the modality that is asked with, as the probe measured it ("any": queries that did not say); empty
    when the tier is exact, or nothing was measured yet.
    """

    rows: int
    tier: str
    segments: int
    disk_bytes: int
    memory_bytes: int
    recall: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection in figures. ``memory_bytes`` is what its index holds now: 0 before the first search.

    ``disk_bytes`` is its share of the catalog file, which all collections of a data directory are in, and its segments. Both are
    None where a store does not tell.
    """

    definition: Definition
    counts: Mapping[str, int]  # items by modality
    disk_bytes: int | None
    memory_bytes: int | None
    index: str = "flat"  # of the largest modality, where they differ
    exact: bool = True
    backend: str = "local"
    partitions: Mapping[str, PartitionState] = field(default_factory=dict)  # by modality; empty where a store does not tell

    @property
    def recall(self) -> float | None:
        """The least that was measured for any pair of modalities; 1.0 when all is exact, None when a tier was not measured yet."""
        indexed = [one.recall for one in self.partitions.values() if one.segments]
        if self.exact or not indexed or not all(indexed):
            return 1.0 if self.exact else None
        return min(value for pairs in indexed for value in pairs.values())

    @property
    def items(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels kept under a name; ``templates`` None means the bundle's prompts."""

    name: str
    labels: tuple[str, ...]
    templates: tuple[str, ...] | None = None


class Collection(Protocol):
    """Items of one space, searchable.

    Threads: every method may be called from any thread at any time. Durability: what a writing method has returned
    survives the death of the process. Visibility: it is seen by the next search, in this and in every other process on
    the same data. Ownership: arguments are copied; results are the caller's. Any method raises `UnknownCollection` once
    the collection was deleted, `StorageFull` when the disk is, and `CatalogDamaged`.
    """

    @property
    def definition(self) -> Definition: ...

    def upsert(self, items: Sequence[Item], *, media: Sequence[str] = ()) -> list[ItemResult]:
        """Store new items and replace those with a known id: one result for each, in order; bad items fail alone.

        ``media``: ids of media that ``items`` replaces as a whole. In the same commit, whatever else is stored under such
        an id goes away: the item itself, and its clips of another grid. Of which nothing could be stored, the old stays.
        """

    def get(self, id: str) -> Item:
        """Raises `UnknownItem`."""

    def patch(self, id: str, metadata: Mapping[str, Any]) -> Item:
        """Merge into the item's metadata (null removes a name, RFC 7396). Raises `UnknownItem`, `InvalidParameter`."""

    def delete(self, *, ids: Iterable[str] | None = None, filter: Mapping[str, Any] | None = None) -> int:
        """Remove by ids or by filter, exactly one of them; how many went away. Unknown ids are no error.

        The id of a medium that is stored as clips stands for all of them.
        """

    def page(self, limit: int = 100, cursor: str | None = None, filter: Mapping[str, Any] | None = None) -> Page:
        """Items in order of creation. Items added meanwhile come later and shift nothing."""

    def content_hashes(self, ids: Iterable[str]) -> dict[str, str | None]:
        """The stored content hash of each id that exists; of a medium stored as clips, theirs (None when they differ)."""

    def seal(self) -> None:
        """Bring the index into its best form now, and measure its recall: what otherwise happens in the background, in its own time.

        Nothing where the store has its own ways. Raises `StorageFull`.
        """

    def search(self, query: Query) -> SearchResult:
        """Raises `DimensionMismatch`, `InvalidParameter`, `InvalidFilter`."""

    def state(self) -> CollectionState: ...

    def __len__(self) -> int: ...


def new_item_id() -> str:
    """An id for an item that came without one."""
    return uuid.uuid4().hex


def check_space(definition: Definition, space: str, whose: str) -> None:
    """Raises `SpaceMismatch` unless vectors of ``space`` may be compared with the collection's. ``whose``: e.g. a bundle's name."""
    if space != definition.space:
        raise SpaceMismatch(
            f"collection {definition.name!r} holds vectors of space {definition.space} (bundle {definition.bundle!r}), "
            f"{whose} gives space {space}; the two cannot be compared. Use that bundle, or index the files again into a new collection"
        )
