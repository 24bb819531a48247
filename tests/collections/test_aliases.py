from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from bindery.collections import Item, Query, Store
from bindery.errors import AlreadyExists, BinderyError, InvalidParameter, UnknownAlias, UnknownCollection
from tests.collections.items import DIMENSION


def make(store: Store, name: str) -> None:
    made = store.create(name, space="s", dimension=DIMENSION, bundle="toy")
    made.upsert([Item(name, "text", np.ones(DIMENSION, dtype=np.float32))])


def test_an_alias_stands_for_its_collection_until_it_is_flipped(store: Store) -> None:
    make(store, "one")
    make(store, "two")
    store.put_alias("now", "one")
    assert "now" in store
    assert store.get("now").definition.name == "one"
    store.put_alias("now", "two")
    assert store.get("now").get("two").id == "two"
    assert store.aliases() == {"now": "two"}
    assert [one.definition.name for one in store.collections()] == ["one", "two"]
    with Store(store.data_dir) as another:
        assert another.get("now").definition.name == "two"
    store.delete_alias("now")
    assert "now" not in store
    with pytest.raises(UnknownAlias):
        store.delete_alias("now")


def test_an_alias_hides_no_collection_and_a_collection_no_alias(store: Store) -> None:
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


def test_a_collection_is_not_deleted_by_its_alias_and_leaves_it_without_an_end(store: Store) -> None:
    make(store, "one")
    store.put_alias("now", "one")
    with pytest.raises(UnknownCollection, match="by its own name"):
        store.delete("now")
    store.delete("one")
    with pytest.raises(UnknownCollection):
        store.get("now")
    make(store, "one")
    assert len(store.get("now")) == 1


def test_searches_during_flips_see_one_or_the_other_and_never_neither(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
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
