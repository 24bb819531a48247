"""What every store of collections promises, and which one the settings choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from bindery.collections import gpu
from bindery.collections.model import Collection, LabelSet
from bindery.collections.snapshots import Snapshot
from bindery.collections.store import Store
from bindery.collections.tiers import Tiers
from bindery.extras import needing
from bindery.settings import Settings


class CollectionStore(Protocol):
    """Collections by name, their aliases, label sets and snapshots.

    Threads: every method may be called from any thread. A name or an alias that was written is seen by the next call in every
    process on the same store. Any method of a store that is elsewhere raises `StoreUnavailable` when it does not answer.
    """

    @property
    def backend(self) -> str:
        """How the store is called in settings and answers: `local`, `milvus`."""

    def create(self, name: str, *, space: str, dimension: int, bundle: str, fields: Mapping[str, str] | None = None) -> Collection:
        """Create a collection; one that exists with the same definition is given back.

        Raises `AlreadyExists` when it exists with another definition, `InvalidParameter`, `TooManyItems`.
        """

    def get(self, name: str) -> Collection:
        """The collection of this name or alias. Raises `UnknownCollection`."""

    def __contains__(self, name: str) -> bool: ...

    def collections(self) -> Sequence[Collection]:
        """All collections by name."""

    def delete(self, name: str) -> None:
        """Delete a collection with all its items. Raises `UnknownCollection`, also for an alias."""

    def put_alias(self, name: str, collection: str) -> None:
        """Let ``name`` stand for a collection, in place of any that it stood for; calls see the one or the other, never neither.

        Raises `AlreadyExists` when a collection has the name, `UnknownCollection` for a target that is none, `InvalidParameter`.
        """

    def aliases(self) -> dict[str, str]:
        """Every alias with its collection's name."""

    def delete_alias(self, name: str) -> None:
        """Its collection stays. Raises `UnknownAlias`."""

    def snapshot(self, name: str) -> Snapshot:
        """Raises `UnknownCollection`, `StorageFull`; `NotOffered` where the store keeps none."""

    def restore(self, name: str, snapshot: str) -> Collection:
        """Raises `UnknownSnapshot`, `SnapshotDamaged`, `AlreadyExists`; `NotOffered` where the store keeps none."""

    def snapshots(self) -> list[Snapshot]: ...

    def delete_snapshot(self, name: str) -> None:
        """Raises `UnknownSnapshot`."""

    def put_label_set(self, label_set: LabelSet) -> None:
        """Keep labels under a name, in place of any before. Raises `InvalidParameter`."""

    def label_set(self, name: str) -> LabelSet:
        """Raises `UnknownLabelSet`."""

    def label_sets(self) -> list[LabelSet]: ...

    def delete_label_set(self, name: str) -> None:
        """Raises `UnknownLabelSet`."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def open_store(settings: Settings, *, make: bool = True) -> CollectionStore:
    """The store of the settings. ``make``: make a local data directory that is missing.

    Raises what `Store` raises, and `InvalidParameter` for settings of Milvus that cannot be used; whether Milvus answers shows with
    the first call.
    """
    if settings.store == "local":
        tiers = Tiers(recall_target=settings.recall_target, gpu=gpu.usable(settings.search_device))
        return Store(settings.data_dir, settings.limits, make=make, tiers=tiers)
    with needing("milvus", "store milvus"):  # half a second to import, too
        from bindery.collections.milvus.store import MilvusStore
    return MilvusStore.of(settings)
