"""The store: one data directory with its collections and label sets.

Several processes may open the same directory, a service and `bindery index` for instance: writers take turns transaction
by transaction, readers never wait, and each process sees the others' writes with its next call (see `database`).
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from bindery.collections import catalog, snapshots
from bindery.collections.database import Database
from bindery.collections.fields import check_fields
from bindery.collections.local import LocalCollection, Segments
from bindery.collections.model import Definition, LabelSet
from bindery.collections.naming import check_dimension, check_label_set_name, check_name, told
from bindery.collections.sealing import Background
from bindery.collections.snapshots import Snapshot
from bindery.collections.tiers import Tiers
from bindery.errors import AlreadyExists, TooManyItems, UnknownAlias, UnknownCollection, UnknownLabelSet
from bindery.limits import Limits

CATALOG = "catalog.sqlite"


class Store:
    """Open a data directory, made if it is missing and ``make`` is true. Any thread may call.

    Raises `CatalogDamaged`, `CatalogTooNew`, `InvalidParameter`; `UnknownCollection` when it is missing and not to be made.
    """

    backend = "local"

    def __init__(self, data_dir: Path | str, limits: Limits | None = None, *, make: bool = True, tiers: Tiers | None = None) -> None:
        self.data_dir = Path(data_dir)
        self._limits = limits or Limits()
        if not make and not (self.data_dir / CATALOG).exists():
            raise UnknownCollection(f"there are no collections in {self.data_dir}: it has no {CATALOG}")
        self._database = Database(self.data_dir / CATALOG)
        self._snapshots = self.data_dir / "snapshots"
        self._segments = Segments(self.data_dir / "segments", tiers or Tiers(), Background())
        self._open: dict[str, LocalCollection] = {}
        self._guard = threading.Lock()
        try:
            self._sweep()
        except BaseException:
            self.close()
            raise

    def create(self, name: str, *, space: str, dimension: int, bundle: str, fields: Mapping[str, str] | None = None) -> LocalCollection:
        """Create a collection; one that exists with the same definition is given back.

        Raises `AlreadyExists` when it exists with another definition, `InvalidParameter`.
        """
        check_name(name, "collection")
        check_dimension(dimension)
        wanted = Definition(name, space, dimension, bundle, check_fields(fields or {}))
        with self._database.writing() as db:
            found = catalog.find_collection(db, name)
            if found is None:
                if name in (aliases := catalog.aliases(db)):
                    raise AlreadyExists(
                        f"{name!r} is an alias of collection {aliases[name]!r}; take another name or delete the alias first"
                    )
                if len(catalog.list_collections(db)) >= self._limits.collections:
                    raise TooManyItems(f"there are {self._limits.collections} collections already; delete one first")
                found = (catalog.insert_collection(db, wanted), wanted)
        if found[1] != wanted:
            raise AlreadyExists(
                f"collection {name!r} exists with {told(found[1])}, asked for was {told(wanted)}; delete it first or take another name"
            )
        return self._opened(*found)

    def get(self, name: str) -> LocalCollection:
        """The collection of this name or alias. Raises `UnknownCollection`."""
        with self._database.reading() as db:
            found = catalog.find_by_any_name(db, name)
        if found is None:
            self._forget(name)
            raise UnknownCollection(f"there is no collection {name!r} in {self.data_dir}")
        return self._opened(*found)

    def __contains__(self, name: str) -> bool:
        with self._database.reading() as db:
            return catalog.find_by_any_name(db, name) is not None

    def collections(self) -> list[LocalCollection]:
        """All collections by name."""
        with self._database.reading() as db:
            found = [catalog.find_collection(db, definition.name) for definition in catalog.list_collections(db)]
        return [self._opened(*pair) for pair in found if pair is not None]

    def delete(self, name: str) -> None:
        """Delete a collection with all its items, at once; its aliases then lead nowhere. Raises `UnknownCollection`, also for an alias."""
        with self._database.writing() as db:
            found = catalog.find_collection(db, name)
            if found is None:
                if name in (aliases := catalog.aliases(db)):
                    raise UnknownCollection(f"{name!r} is an alias: delete collection {aliases[name]!r} by its own name, or the alias")
                raise UnknownCollection(f"there is no collection {name!r} in {self.data_dir}")
            catalog.delete_collection(db, found[0])
        self._forget(name)
        shutil.rmtree(self._segments.folder / str(found[0]), ignore_errors=True)

    def put_alias(self, name: str, collection: str) -> None:
        """Let ``name`` stand for a collection, in place of any that it stood for; calls see the one or the other, never neither.

        Raises `AlreadyExists` when a collection has the name, `UnknownCollection` for a target that is none, `InvalidParameter`.
        """
        check_name(name, "alias")
        with self._database.writing() as db:
            if catalog.find_collection(db, name) is not None:
                raise AlreadyExists(f"{name!r} is a collection's own name; an alias must not hide it. Take another name")
            if catalog.find_collection(db, collection) is None:
                raise UnknownCollection(f"there is no collection {collection[:80]!r} to give an alias to; aliases of aliases are not made")
            catalog.put_alias(db, name, collection)

    def aliases(self) -> dict[str, str]:
        """Every alias with its collection's name."""
        with self._database.reading() as db:
            return catalog.aliases(db)

    def delete_alias(self, name: str) -> None:
        """Its collection stays. Raises `UnknownAlias`."""
        with self._database.writing() as db:
            if not catalog.delete_alias(db, name):
                raise UnknownAlias(f"there is no alias {name[:80]!r}")

    def snapshot(self, name: str) -> Snapshot:
        """Copy a collection as it is now, while others read and write it. Raises `UnknownCollection`, `StorageFull`."""
        with self._database.reading() as db:
            found = catalog.find_by_any_name(db, name)
            if found is None:
                raise UnknownCollection(f"there is no collection {name!r} in {self.data_dir}")
            return snapshots.take(db, *found, self._snapshots)

    def restore(self, name: str, snapshot: str) -> LocalCollection:
        """Put a snapshot's items into collection ``name``, made when it is missing, in place of all that it holds.

        In one transaction: searches see what was before or what is after. Writers wait meanwhile. Raises `UnknownSnapshot`,
        `SnapshotDamaged`, and `AlreadyExists` when the collection has another space, dimension, bundle or other fields.
        """
        found = snapshots.find(self._snapshots, snapshot)
        snapshots.check(self._snapshots, snapshot)
        was = found.definition
        target = (
            self.get(name)
            if name in self
            else self.create(name, space=was.space, dimension=was.dimension, bundle=was.bundle, fields=was.fields)
        )
        if replace(target.definition, name=was.name) != was:
            raise AlreadyExists(
                f"collection {name!r} exists with {told(target.definition)}, the snapshot has {told(was)}; restore under another name"
            )
        with self._database.writing() as db:
            at = catalog.next_generation(db, target.id)
            if at is None:
                raise UnknownCollection(f"collection {name!r} was deleted meanwhile")
            catalog.delete_keys(db, target.id, at, catalog.every_key(db, target.id))
            for records in snapshots.records(self._snapshots, found, self._limits):
                catalog.upsert(db, target.id, at, records)
        return target

    def snapshots(self) -> list[Snapshot]:
        return snapshots.every(self._snapshots)

    def delete_snapshot(self, name: str) -> None:
        """Raises `UnknownSnapshot`."""
        snapshots.remove(self._snapshots, name)

    def put_label_set(self, label_set: LabelSet) -> None:
        """Keep labels under a name, in place of any before. Raises `InvalidParameter`."""
        check_label_set_name(label_set.name)
        with self._database.writing() as db:
            catalog.put_label_set(db, label_set)

    def label_set(self, name: str) -> LabelSet:
        """Raises `UnknownLabelSet`."""
        with self._database.reading() as db:
            found = catalog.label_sets(db, name)
        if not found:
            raise UnknownLabelSet(f"there is no label set {name!r}")
        return found[0]

    def label_sets(self) -> list[LabelSet]:
        with self._database.reading() as db:
            return catalog.label_sets(db)

    def delete_label_set(self, name: str) -> None:
        """Raises `UnknownLabelSet`."""
        with self._database.writing() as db:
            if not catalog.delete_label_set(db, name):
                raise UnknownLabelSet(f"there is no label set {name!r}")

    def close(self) -> None:
        self._segments.background.close()
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _sweep(self) -> None:
        """Remove the segments of collections that are gone: whoever deleted them may have died before he came to that."""
        with self._database.reading() as db:
            ids, highest = catalog.collection_ids(db)
        for folder in self._segments.folder.glob("*"):
            if folder.name.isdecimal() and int(folder.name) <= highest and int(folder.name) not in ids:
                shutil.rmtree(folder, ignore_errors=True)

    def _opened(self, collection_id: int, definition: Definition) -> LocalCollection:
        with self._guard:
            known = self._open.get(definition.name)
            # One that was deleted and made again, perhaps by another process, has the name but is another.
            if known is None or known.id != collection_id:
                known = LocalCollection(self._database, collection_id, definition, self._limits, self._segments)
                self._open[definition.name] = known
            return known

    def _forget(self, name: str) -> None:
        with self._guard:
            self._open.pop(name, None)
