"""Where a job's vectors go: the interface, and collections as the first that keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bindery.collections import Collection, CollectionStore, Item, ItemResult, check_space
from bindery.collections.clips import is_clip_of
from bindery.collections.model import FieldType
from bindery.errors import UnknownItem
from bindery.jobs.executor import Crew
from bindery.jobs.spec import JobSpec

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """What a target has done and the ledger has yet to know. ``place``: where the items are; ``moved``: places that are now
    others, or none, with all that is in them and was not stored or removed just now."""

    results: list[ItemResult]
    place: str = ""
    moved: Mapping[str, str | None] = field(default_factory=dict)


class Target(Protocol):
    """Any thread may call. Each `store` and `remove` is followed by `publish` once the ledger knows of it, or by `discard`."""

    units_at_once: int
    """How many units one commit has at the most,"""

    wait_s: float
    """and how long the first of them waits for the others, in seconds."""

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The declared metadata fields."""

    def content_hashes(self, names: Iterable[str]) -> Mapping[str, str | None]:
        """What is stored of each file, as its items' content hash."""

    def items_of(self, name: str) -> list[Item]:
        """A file's items, none when there are none."""

    def store(self, items: Sequence[Item], names: Sequence[str], lasting: Sequence[str]) -> Stored:
        """Items of files, in place of all that is stored of those. ``lasting``: those of the files that last in time."""

    def remove(self, names: Sequence[str]) -> Stored: ...

    def publish(self) -> None: ...

    def discard(self) -> None: ...

    def finish(self) -> None:
        """The job is done."""


OpenTarget = Callable[[JobSpec, Crew], Target]
"""Raises `UnknownModality`, `InvalidParameter`, `SpaceMismatch` for a job that cannot be done with the crew's bundle."""


class InCollection:
    """Implements `Target`. What a collection has returned is durable, and storing it again changes nothing."""

    units_at_once: int = 64
    wait_s: float = 2.0

    def __init__(self, collection: Collection, page_items: int) -> None:
        self._collection = collection
        self._page_items = min(_PAGE, page_items)

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return self._collection.definition.fields

    def content_hashes(self, names: Iterable[str]) -> Mapping[str, str | None]:
        return self._collection.content_hashes(names)

    def items_of(self, name: str) -> list[Item]:
        try:
            return [self._collection.get(name)]
        except UnknownItem:
            items: list[Item] = []
            cursor: str | None = None
            while True:
                page = self._collection.page(self._page_items, cursor, {"id": {"prefix": f"{name}#"}})
                items += [item for item in page.items if is_clip_of(item.id, name)]
                cursor = page.cursor
                if cursor is None:
                    return items

    def store(self, items: Sequence[Item], names: Sequence[str], lasting: Sequence[str]) -> Stored:
        del names  # those that do not last have the one id, which is replaced anyway
        return Stored(self._collection.upsert(items, media=lasting) if items else [])

    def remove(self, names: Sequence[str]) -> Stored:
        self._collection.delete(ids=names)
        return Stored([])

    def publish(self) -> None: ...

    def discard(self) -> None: ...

    def finish(self) -> None: ...


def check_spec(spec: JobSpec, crew: Crew) -> None:
    """All of the spec that can be checked without its source. Raises `UnknownModality`, `InvalidParameter`."""
    for modality in spec.rules.values():
        crew.bundle.modality(modality)
    spec.clip_options()


def collection_for(spec: JobSpec, crew: Crew, store: CollectionStore) -> Collection:
    """The job's collection, made when it is missing. Raises as `OpenTarget`."""
    check_spec(spec, crew)
    manifest = crew.bundle.manifest
    if spec.collection not in store:
        store.create(spec.collection, space=manifest.space, dimension=manifest.dimension, bundle=manifest.name, fields=spec.fields)
    found = store.get(spec.collection)
    check_space(found.definition, manifest.space, f"bundle {manifest.name!r}")
    return found


def in_collections(store: CollectionStore) -> OpenTarget:
    return lambda spec, crew: InCollection(collection_for(spec, crew, store), crew.limits.page_items)
