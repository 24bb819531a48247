from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bindery.collections import Collection, CollectionStore, Item, Query, Store
from bindery.collections import catalog as catalog_module
from bindery.collections.milvus.store import MilvusStore
from bindery.errors import DimensionMismatch, InvalidFilter, InvalidParameter, UnknownCollection, UnknownItem
from bindery.vectors import Vectors
from tests.collections.items import DIMENSION, FIELDS, MODALITIES, item, vector


@pytest.fixture
def collection(either: Collection) -> Collection:
    return either


def _ids(collection: Collection, query: Query) -> list[str]:
    return [hit.id for hit in collection.search(query)]


def test_upsert_reports_each_item_in_order(collection: Collection) -> None:
    collection.upsert([item(1)])
    results = collection.upsert([item(2, "twice"), item(1), item(3, vector=np.ones(5)), item(4, "twice"), item(5, metadata={"count": "x"})])
    assert [result.status for result in results] == ["superseded", "updated", "failed", "created", "failed"]
    assert [result.error.code for result in results if result.error] == ["dimension_mismatch", "invalid_parameter"]
    assert np.allclose(collection.get("twice").vector, vector(4), atol=1e-3)
    assert len(collection) == 2


def test_an_item_comes_back_whole(collection: Collection) -> None:
    given = item(9, content_hash="abc", metadata={"place": "yard", "note": {"deep": [1, None]}})
    collection.upsert([given])
    found = collection.get("item-9")
    for name in ("id", "modality", "uri", "start", "end", "metadata", "content_hash"):
        assert getattr(found, name) == getattr(given, name)
    assert found.vector.dtype == np.float32
    assert abs(float(found.vector @ given.vector) - 1) < 1e-3


def test_get_names_what_is_missing(collection: Collection) -> None:
    with pytest.raises(UnknownItem, match="'things' has no item 'nope'"):
        collection.get("nope")


def test_a_patch_merges_and_filters_see_it_at_once(collection: Collection) -> None:
    collection.upsert([item(1)])
    assert collection.patch("item-1", {"place": "cellar", "count": None, "extra": 1}).metadata == {
        "place": "cellar", "weight": 1 / 7, "fresh": False, "taken": "2026-01-02T12:00:00Z", "extra": 1,
    }  # fmt: skip
    assert _ids(collection, Query(vector(1), filter={"place": {"eq": "cellar"}, "count": {"exists": False}})) == ["item-1"]
    with pytest.raises(InvalidParameter, match="'count'"):
        collection.patch("item-1", {"count": "many"})
    assert collection.get("item-1").metadata["place"] == "cellar"
    with pytest.raises(UnknownItem):
        collection.patch("nope", {})


def test_deletes_are_seen_at_once(collection: Collection) -> None:
    collection.upsert([item(n) for n in range(40)])
    assert _ids(collection, Query(vector(7), 1)) == ["item-7"]
    assert collection.delete(ids=["item-7", "item-7", "nope"]) == 1
    assert "item-7" not in _ids(collection, Query(vector(7), 100))
    assert collection.delete(ids=["item-7"]) == 0
    assert collection.delete(filter={"modality": {"eq": "audio"}}) == 13
    assert collection.state().counts == {"image": 12, "text": 14}


@pytest.mark.parametrize("how", [{}, {"ids": ["a"], "filter": {"id": {"eq": "a"}}}])
def test_deleting_takes_exactly_one_of_ids_and_filter(collection: Collection, how: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="exactly one"):
        collection.delete(**how)


def test_an_empty_filter_deletes_nothing(collection: Collection) -> None:
    collection.upsert([item(1)])
    with pytest.raises(InvalidFilter):
        collection.delete(filter={})
    assert len(collection) == 1


def test_an_item_may_change_its_modality(collection: Collection) -> None:
    collection.upsert([item(1), item(2)])
    assert _ids(collection, Query(vector(1), 1, modalities=("image",))) == ["item-1"]
    assert collection.upsert([item(1, modality="audio")])[0].status == "updated"
    assert _ids(collection, Query(vector(1), 5, modalities=("image",))) == []
    assert _ids(collection, Query(vector(1), 1, modalities=("audio",))) == ["item-1"]
    assert collection.state().counts == {"audio": 2}


def test_offset_top_k_and_min_score_cut_the_same_list(collection: Collection) -> None:
    collection.upsert([item(n) for n in range(50)])
    whole = collection.search(Query(vector(3), 50)).hits
    assert len(whole) == 50
    assert [hit.score for hit in whole] == sorted((hit.score for hit in whole), reverse=True)
    part = collection.search(Query(vector(3), 7, offset=5)).hits
    assert [hit.id for hit in part] == [hit.id for hit in whole[5:12]]
    good = collection.search(Query(vector(3), 50, min_score=whole[9].score)).hits
    assert [hit.id for hit in good] == [hit.id for hit in whole[:10]]
    assert collection.search(Query(vector(3), 5, offset=60)).hits == []


def test_groups_give_their_best_hit_and_items_without_a_group_stand_alone(collection: Collection) -> None:
    collection.upsert([item(n) for n in range(60)] + [item(60, uri=None), item(61, uri=None)])
    whole = collection.search(Query(vector(3), 100)).hits
    best: dict[str, str] = {}
    for hit in whole:
        best.setdefault(hit.uri or hit.id, hit.id)
    for top_k in (3, 17, 100):
        assert _ids(collection, Query(vector(3), top_k, group_by="uri")) == list(best.values())[:top_k]
    assert len(_ids(collection, Query(vector(3), 10, group_by="place"))) == 3
    of_kinds = [hit.modality for hit in collection.search(Query(vector(3), 10, group_by="modality")).hits]
    assert len(of_kinds) == len(set(of_kinds)) == len({hit.modality for hit in whole})
    with pytest.raises(InvalidParameter, match="uri, modality, place"):
        collection.search(Query(vector(3), group_by="color"))


def test_groups_are_filled_even_when_one_of_them_holds_the_nearest_thousand(collection: Collection) -> None:
    near = [item(n, uri="same", vector=vector(1) + 0.01 * vector(n)) for n in range(1000)]
    far = [item(2000 + n, uri=f"other-{n}", vector=-vector(1) + 0.01 * vector(n)) for n in range(3)]
    collection.upsert(near + far)
    found = collection.search(Query(vector(1), 4, group_by="uri")).hits
    assert found[0].uri == "same"
    assert sorted(str(hit.uri) for hit in found[1:]) == ["other-0", "other-1", "other-2"]


def test_excluded_ids_and_embeddings(collection: Collection) -> None:
    collection.upsert([item(n) for n in range(10)])
    found = collection.search(Query(vector(3), 10, exclude_ids=("item-3", "nope"), include_embedding=True))
    assert len(found) == 9
    for hit in found:
        assert hit.embedding is not None
        assert np.array_equal(hit.embedding, collection.get(hit.id).vector)
        assert abs(float(hit.embedding @ vector(3)) - hit.score) < 1e-5


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (Query(vector(1, 23)), DimensionMismatch),
        (Query(np.zeros(DIMENSION, dtype=np.float32)), InvalidParameter),
        (Query(vector(1), top_k=0), InvalidParameter),
        (Query(vector(1), top_k=1001), InvalidParameter),
        (Query(vector(1), offset=-1), InvalidParameter),
        (Query(vector(1), offset=10_000), InvalidParameter),
        (Query(vector(1), filter={"nope": {"eq": 1}}), InvalidFilter),
    ],
)
def test_a_wrong_query_is_refused(collection: Collection, query: Query, error: type[Exception]) -> None:
    with pytest.raises(error):
        collection.search(query)


def test_pages_walk_over_everything_once_while_items_come_and_go(collection: Collection) -> None:
    collection.upsert([item(n) for n in range(25)])
    seen: list[str] = []
    cursor = None
    while True:
        page = collection.page(4, cursor)
        seen += [each.id for each in page.items]
        if page.cursor is None:
            break
        cursor = page.cursor
        if len(seen) == 8:
            collection.upsert([item(3), item(100)])  # one that was seen, and a new one
            collection.delete(ids=["item-5", "item-20"])
    wanted = [f"item-{n}" for n in range(25) if n not in (5, 20)]
    # The two came after the first pages were read: what was already seen is not seen again, what is deleted may have been seen.
    assert len(seen) == len(set(seen))
    assert set(wanted) <= set(seen) <= {*wanted, "item-5", "item-20", "item-100"}


@pytest.mark.parametrize("cursor", ["", "x", "YWZ0ZXI6", "Ä", "YWZ0ZXI6MDE="])
def test_a_made_up_cursor_is_refused(collection: Collection, cursor: str) -> None:
    with pytest.raises(InvalidParameter, match="cursor"):
        collection.page(4, cursor)


def test_a_deleted_collection_says_so(either_store: CollectionStore) -> None:
    collection = either_store.create("things", space="space-a", dimension=DIMENSION, bundle="toy", fields=FIELDS)
    collection.upsert([item(1)])
    collection.search(Query(vector(1)))
    either_store.delete("things")
    again = either_store.create("things", space="space-b", dimension=DIMENSION, bundle="toy")
    for use in (
        lambda: collection.upsert([item(1)]),
        lambda: collection.search(Query(vector(1))),
        lambda: collection.get("item-1"),
        lambda: collection.delete(ids=["item-1"]),
        collection.page,
        collection.state,
    ):
        with pytest.raises(UnknownCollection, match="was deleted"):
            use()
    assert len(again) == 0


@pytest.mark.parametrize(("kind", "seed"), [("local", 0), ("local", 1), ("local", 2), ("milvus", 0)])
def test_any_history_agrees_with_a_dictionary_and_brute_force(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, seed: int
) -> None:
    """Two processes' worth of stores on one directory or Milvus, reopened now and then, against the plainest model there is."""
    monkeypatch.setattr(catalog_module, "KEPT_GENERATIONS", 5)  # so that falling far behind happens too
    rng = random.Random(seed)
    truth: dict[str, Item] = {}
    if kind == "milvus":
        request.getfixturevalue("milvus")  # empties it

    def opened() -> CollectionStore:
        return Store(tmp_path) if kind == "local" else MilvusStore(request.getfixturevalue("milvus_uri"), timeout_s=60.0)

    stores = [opened(), opened()]
    stores[0].create("c", space="s", dimension=DIMENSION, bundle="b", fields=FIELDS)
    for step in range(120):
        which = rng.randrange(2)
        collection = stores[which].get("c")
        action = rng.choices(["upsert", "delete", "delete where", "search", "reopen"], [5, 2, 1, 5, 1])[0]
        if action == "upsert":
            changed = [item(rng.randrange(10_000), f"id-{rng.randrange(60)}") for _ in range(rng.randrange(1, 9))]
            collection.upsert(changed)
            truth |= {each.id: each for each in changed}
        elif action == "delete":
            gone = [f"id-{rng.randrange(60)}" for _ in range(4)]
            assert collection.delete(ids=gone) == len(set(gone) & set(truth))
            truth = {id: each for id, each in truth.items() if id not in gone}
        elif action == "delete where":
            place = rng.choice(["yard", "hall", "roof"])
            kept = {id: each for id, each in truth.items() if each.metadata["place"] != place or each.metadata["count"] % 2}
            assert collection.delete(filter={"place": {"eq": place}, "fresh": {"eq": True}}) == len(truth) - len(kept)
            truth = kept
        elif action == "search":
            modality = rng.choice([None, *MODALITIES])
            most = rng.randrange(1, 20)
            found = collection.search(Query(vector(step), most, modalities=modality and (modality,), filter={"fresh": {"eq": True}}))  # type: ignore[arg-type]
            assert [hit.id for hit in found] == _best(truth, vector(step), modality)[:most], f"seed {seed}, step {step}"
        else:
            stores[which].close()
            stores[which] = opened()
        assert len(stores[which].get("c")) == len(truth)
    for each_store in stores:
        each_store.close()


def _best(truth: dict[str, Item], query: Vectors, modality: str | None) -> list[str]:
    scores = {
        id: float(each.vector.astype(np.float16).astype(np.float32) @ query)
        for id, each in truth.items()
        if each.metadata["fresh"] and modality in (None, each.modality)
    }
    return sorted(scores, key=lambda id: -scores[id])


def test_threads_may_do_anything_at_once(collection: Collection) -> None:
    """Items of even number stay for ever: every search must find them, whatever the other threads do."""
    collection.upsert([item(n) for n in range(0, 200, 2)])
    stop = threading.Event()
    errors: list[BaseException] = []

    def churn(start: int) -> None:
        rng = random.Random(start)
        while not stop.is_set():
            odd = [2 * rng.randrange(100) + 1 for _ in range(5)]
            collection.upsert([item(n) for n in odd])
            collection.delete(ids=[f"item-{n}" for n in odd[:3]])

    def look(start: int) -> None:
        for n in range(start, 200, 4):
            hits = collection.search(Query(vector(n), 150)).hits
            assert hits[0].id == f"item-{n}"
            assert len({hit.id for hit in hits}) == len(hits) >= 100

    def watched(work: Any, start: int) -> None:
        try:
            work(start)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    writers = [threading.Thread(target=watched, args=(churn, n)) for n in range(2)]
    readers = [threading.Thread(target=watched, args=(look, n)) for n in (0, 2)]
    for thread in writers + readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in writers:
        thread.join()
    assert errors == []
