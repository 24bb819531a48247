"""The store in Milvus: names, definitions and label sets, so that every service on the same Milvus has the same.

Each collection lies in a Milvus collection of its own, with a name that is used only once; the collection's name, and every alias
of it, is a Milvus alias. So a name is given, flipped and taken away in one step that all see, and who holds a collection that
was deleted and made again does not write into the other. What Milvus has no place for is in the collection `bindery_catalog`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

from pymilvus import DataType, MilvusClient

from bindery.collections.fields import check_fields
from bindery.collections.milvus.collection import Index, MilvusCollection
from bindery.collections.milvus.connection import Connection
from bindery.collections.milvus.expressions import among, below_after, text
from bindery.collections.milvus.rows import MOST_DIMENSIONS, TEXT_BYTES, indexes_of, schema_of
from bindery.collections.model import Definition, LabelSet
from bindery.collections.naming import check_dimension, check_label_set_name, check_name, told
from bindery.collections.snapshots import Snapshot
from bindery.errors import (
    AlreadyExists,
    InvalidParameter,
    NotOffered,
    StoreUnavailable,
    TooManyItems,
    UnknownAlias,
    UnknownCollection,
    UnknownLabelSet,
)
from bindery.limits import Limits
from bindery.settings import Settings

_CATALOG = "bindery_catalog"
_COLLECTION, _LABEL_SET = "collection:", "label_set:"
_PREFIX = "bindery_"
_ONCE = "__C"  # no name that we make has a capital C, so no alias is called like a collection


class MilvusStore:
    """Implements `CollectionStore`. ``index`` is how collections made from now on are indexed."""

    backend = "milvus"

    def __init__(
        self, uri: str, token: str | None = None, *, index: Index | None = None, timeout_s: float = 10.0, limits: Limits | None = None
    ) -> None:
        self._milvus = Connection(uri, token, timeout_s)
        self._index = index or Index()
        self._limits = limits or Limits()
        self._opened: dict[str, MilvusCollection] = {}
        self._has_catalog = False

    @classmethod
    def of(cls, settings: Settings) -> MilvusStore:
        """Raises `InvalidParameter` for settings that cannot be used."""
        token = None if settings.milvus_token is None else settings.milvus_token.get_secret_value()
        index = Index(settings.milvus_index, settings.milvus_index_params, settings.milvus_search_params)
        return cls(settings.milvus_uri, token, index=index, timeout_s=settings.milvus_timeout_seconds, limits=settings.limits)

    def create(self, name: str, *, space: str, dimension: int, bundle: str, fields: Mapping[str, str] | None = None) -> MilvusCollection:
        check_name(name, "collection")
        check_dimension(dimension, MOST_DIMENSIONS)
        wanted = Definition(name, space, dimension, bundle, check_fields(fields or {}))
        found = self._find(name)
        if found is None:
            found = self._make(wanted)
        if found.definition.name != name:
            raise AlreadyExists(
                f"{name!r} is an alias of collection {found.definition.name!r}; take another name or delete the alias first"
            )
        if found.definition != wanted:
            raise AlreadyExists(
                f"collection {name!r} exists with {told(found.definition)}, asked for was {told(wanted)}; "
                "delete it first or take another name"
            )
        return found

    def get(self, name: str) -> MilvusCollection:
        found = self._find(name)
        if found is None:
            raise UnknownCollection(f"there is no collection {name!r} in this Milvus")
        return found

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def collections(self) -> list[MilvusCollection]:
        places = [key.removeprefix(_COLLECTION) for key in self._entries(_COLLECTION)]
        found = [self._open(place) for place in places]
        # One that is being made or deleted, or was left so by a crash, has no name that leads to it.
        named = [one for one in found if one is not None and self._milvus.aliased(_alias(one.definition.name)) == one.place]
        return sorted(named, key=lambda one: one.definition.name)

    def delete(self, name: str) -> None:
        """Its aliases go away with it."""
        found = self._find(name)
        if found is None:
            raise UnknownCollection(f"there is no collection {name!r} in this Milvus")
        if found.definition.name != name:
            raise UnknownCollection(f"{name!r} is an alias: delete collection {found.definition.name!r} by its own name, or the alias")
        for alias in self._milvus.aliases(found.place):
            self._milvus.drop_alias(alias)
        self._milvus.drop_collection(found.place)
        self._forget(_COLLECTION + found.place)
        self._opened.pop(found.place, None)

    def put_alias(self, name: str, collection: str) -> None:
        check_name(name, "alias")
        was, target = self._find(name), self._find(collection)
        if was is not None and was.definition.name == name:
            raise AlreadyExists(f"{name!r} is a collection's own name; an alias must not hide it. Take another name")
        if target is None or target.definition.name != collection:
            raise UnknownCollection(f"there is no collection {collection[:80]!r} to give an alias to; aliases of aliases are not made")
        if was is None:
            self._milvus.create_alias(_alias(name), target.place)
        else:
            self._milvus.alter_alias(_alias(name), target.place)

    def aliases(self) -> dict[str, str]:
        found = {
            _name(alias): one.definition.name
            for one in self.collections()
            for alias in self._milvus.aliases(one.place)
            if _name(alias) != one.definition.name
        }
        return dict(sorted(found.items()))

    def delete_alias(self, name: str) -> None:
        found = self._find(name)
        if found is None or found.definition.name == name:
            raise UnknownAlias(f"there is no alias {name[:80]!r}")
        self._milvus.drop_alias(_alias(name))

    def snapshot(self, name: str) -> Snapshot:
        self.get(name)
        _no_snapshots()

    def restore(self, name: str, snapshot: str) -> MilvusCollection:  # noqa: ARG002 - the promise names them
        _no_snapshots()

    def snapshots(self) -> list[Snapshot]:
        return []

    def delete_snapshot(self, name: str) -> None:  # noqa: ARG002 - the promise names it
        _no_snapshots()

    def put_label_set(self, label_set: LabelSet) -> None:
        check_label_set_name(label_set.name)
        self._enter(_LABEL_SET + label_set.name, {"labels": label_set.labels, "templates": label_set.templates})

    def label_set(self, name: str) -> LabelSet:
        found = self._entry(_LABEL_SET + name)
        if found is None:
            raise UnknownLabelSet(f"there is no label set {name!r}")
        return _label_set(name, found)

    def label_sets(self) -> list[LabelSet]:
        return [_label_set(key.removeprefix(_LABEL_SET), value) for key, value in self._entries(_LABEL_SET).items()]

    def delete_label_set(self, name: str) -> None:
        self.label_set(name)
        self._forget(_LABEL_SET + name)

    def close(self) -> None:
        self._milvus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Collections

    def _find(self, name: str) -> MilvusCollection | None:
        """The collection of this name or alias."""
        place = self._milvus.aliased(_alias(name))
        return None if place is None else self._open(place)

    def _open(self, place: str) -> MilvusCollection | None:
        known = self._opened.get(place)
        if known is None:
            entry = self._entry(_COLLECTION + place)
            if entry is None:
                return None
            definition = Definition(entry["name"], entry["space"], entry["dimension"], entry["bundle"], check_fields(entry["fields"]))
            index = Index(entry["index"], search=self._index.search if entry["index"] == self._index.kind else {})
            known = self._opened.setdefault(place, MilvusCollection(self._milvus, place, definition, index, self._limits))
        return known

    def _make(self, wanted: Definition) -> MilvusCollection:
        if len(self._entries(_COLLECTION)) >= self._limits.collections:
            raise TooManyItems(f"there are {self._limits.collections} collections already; delete one first")
        place = self._left_over(wanted)
        if place is None:
            place = f"{_alias(wanted.name)}{_ONCE}{uuid.uuid4().hex[:12]}"
            self._enter(_COLLECTION + place, self._told(wanted))  # first: so no collection is there that nobody knows of
            self._milvus.create_collection(place, schema_of(wanted), indexes_of(self._index.kind, self._index.build))
        try:
            self._milvus.create_alias(_alias(wanted.name), place)  # fails when another process has made it meanwhile
        except StoreUnavailable:
            found = self._find(wanted.name)
            if found is None or found.place != place:  # else the other one found this one before it had its name
                self._milvus.drop_collection(place)
                self._forget(_COLLECTION + place)
            if found is None:
                raise
            return found
        made = self._find(wanted.name)
        if made is None:
            raise UnknownCollection(f"collection {wanted.name!r} was deleted meanwhile")
        return made

    def _left_over(self, wanted: Definition) -> str | None:
        """A collection like this, empty and without a name: a crash can leave one. One with items was deleted, or came from a backup."""
        for key, entry in self._entries(_COLLECTION).items():
            place = key.removeprefix(_COLLECTION)
            if entry == self._told(wanted) and self._milvus.has_collection(place) and not self._milvus.count(place):
                return place
        return None

    def _told(self, definition: Definition) -> dict[str, Any]:
        return definition.document() | {"index": self._index.kind}

    # The catalog: keys with JSON values

    def _enter(self, key: str, value: Mapping[str, Any]) -> None:
        whole = json.dumps(value)
        if len(whole) > TEXT_BYTES:
            raise InvalidParameter(f"{key.replace(':', ' ', 1)} takes {len(whole)} bytes as JSON; in Milvus at most {TEXT_BYTES} are taken")
        self._make_catalog()
        self._milvus.upsert(_CATALOG, [{"key": key, "value": whole, "nothing": [0.0, 0.0]}])

    def _entry(self, key: str) -> dict[str, Any] | None:
        self._make_catalog()
        rows = self._milvus.rows(_CATALOG, among("key", [key]), ["key", "value"], 1)
        return dict(json.loads(rows[0]["value"])) if rows else None

    def _entries(self, prefix: str) -> dict[str, dict[str, Any]]:
        """All that begin so, by key."""
        self._make_catalog()
        rows = self._milvus.rows(_CATALOG, f"key >= {text(prefix)} and key < {text(below_after(prefix) or '')}", ["key", "value"])
        return {row["key"]: json.loads(row["value"]) for row in rows}

    def _forget(self, key: str) -> None:
        self._milvus.delete(_CATALOG, among("key", [key]))

    def _make_catalog(self) -> None:
        if self._has_catalog:
            return
        if not self._milvus.has_collection(_CATALOG):
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=512)
            schema.add_field("value", DataType.VARCHAR, max_length=TEXT_BYTES)
            schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)  # Milvus wants a vector in every collection
            indexes = MilvusClient.prepare_index_params()
            indexes.add_index("nothing", index_type="FLAT", metric_type="L2")
            try:
                self._milvus.create_collection(_CATALOG, schema, indexes)
            except StoreUnavailable:
                if not self._milvus.has_collection(_CATALOG):  # else another process was faster
                    raise
        self._has_catalog = True


def _label_set(name: str, value: Mapping[str, Any]) -> LabelSet:
    return LabelSet(name, tuple(value["labels"]), None if value["templates"] is None else tuple(value["templates"]))


def _alias(name: str) -> str:
    """A name in Milvus' letters: it takes no hyphen, and our names have no capitals."""
    return _PREFIX + name.replace("-", "H")


def _name(alias: str) -> str:
    return alias.removeprefix(_PREFIX).replace("H", "-")


def _no_snapshots() -> NoReturn:
    raise NotOffered(
        "the collections of this server are in Milvus, which bindery takes no snapshots of: back Milvus up with milvus-backup, "
        "or write a collection to files with `bindery collection export NAME --out DIR` and read it back with `bindery collection import`"
    )
