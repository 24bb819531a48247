from __future__ import annotations

import threading

import numpy as np
import pytest

from bindery.collections import CollectionStore, Item, Query, Store
from bindery.errors import AlreadyExists, BinderyError, InvalidParameter, UnknownAlias, UnknownCollection
from tests.collections.items import DIMENSION


@pytest.fixture
def store(either_store: CollectionStore) -> CollectionStore:
    return either_store


def make(store: CollectionStore, name: str) -> None:
    made = store.create(name, space="s", dimension=DIMENSION, bundle="toy")
    made.upsert([Item(name, "text", np.ones(DIMENSION, dtype=np.float32))])


def test_an_alias_stands_for_its_collection_until_it_is_flipped(store: CollectionStore) -> None:
    make(store, "one")
    make(store, "two")
    store.put_alias("now", "one")
    assert "now" in store
    assert store.get("now").definition.name == "one"
    store.put_alias("now", "two")
    assert store.get("now").get("two").id == "two"
    assert store.aliases() == {"now": "two"}
    assert [one.definition.name for one in store.collections()] == ["one", "two"]
    store.delete_alias("now")
    assert "now" not in store
    with pytest.raises(UnknownAlias):
        store.delete_alias("now")


def test_an_alias_hides_no_collection_and_a_collection_no_alias(store: CollectionStore) -> None:
    make(store, "one")
    make(store, "two")
    with pytest.raises(AlreadyExists, match="must not hide"):
        store.put_alias("one", "two")
    store.put_alias("now", "one")
    with pytest.raises(AlreadyExists, match="is an alias of collection 'one'"):
        make(store, "now")
    with pytest.raises(UnknownCollection, match="aliases of aliases"):
        store.put_alias("later", "now")
    with pytest.raises(UnknownCollection):
        store.put_alias("now", "nothing")
    with pytest.raises(InvalidParameter, match="alias name"):
        store.put_alias("Not/A/Name", "one")
    assert store.aliases() == {"now": "one"}


def test_another_process_sees_the_flip(local_store: Store) -> None:
    make(local_store, "one")
    with Store(local_store.data_dir) as another:
        local_store.put_alias("now", "one")
        assert another.get("now").definition.name == "one"


def test_a_collection_is_not_deleted_by_its_alias(store: CollectionStore) -> None:
    make(store, "one")
    store.put_alias("now", "one")
    with pytest.raises(UnknownCollection, match="by its own name"):
        store.delete("now")
    store.delete("one")
    assert "now" not in store


def test_an_alias_waits_for_its_collection(local_store: Store) -> None:
    make(local_store, "one")
    local_store.put_alias("now", "one")
    local_store.delete("one")
    with pytest.raises(UnknownCollection):
        local_store.get("now")
    make(local_store, "one")
    assert len(local_store.get("now")) == 1


def test_searches_during_flips_see_one_or_the_other_and_never_neither(store: CollectionStore) -> None:
    make(store, "one")
    make(store, "two")
    store.put_alias("now", "one")
    done = threading.Event()
    seen: set[str] = set()
    errors: list[Exception] = []

    def search() -> None:
        query = Query(np.ones(DIMENSION, dtype=np.float32), top_k=5)
        try:
            while not done.is_set():
                (hit,) = store.get("now").search(query)
                seen.add(hit.id)
        except (BinderyError, ValueError) as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        store.put_alias("now", ("two", "one")[turn % 2])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen == {"one", "two"}
