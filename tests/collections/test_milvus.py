"""What only a store in Milvus does; what it has in common with the local one is in the other files, run over both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_lite.adapter.grpc.server import start_server_in_thread

from bindery.collections import Item, LabelSet, Page, Query, open_store
from bindery.collections.milvus import collection as collection_module
from bindery.collections.milvus.collection import Index, MilvusCollection
from bindery.collections.milvus.connection import Connection
from bindery.collections.milvus.expressions import below_after
from bindery.collections.milvus.rows import MOST_FIELDS
from bindery.collections.milvus.store import MilvusStore
from bindery.errors import AlreadyExists, InvalidParameter, NotOffered, StoreUnavailable
from bindery.settings import Settings
from tests.collections.items import DIMENSION, FIELDS, item, vector

SPEC: dict[str, Any] = {"space": "s", "dimension": DIMENSION, "bundle": "b", "fields": FIELDS}


def test_the_settings_choose_it(milvus_uri: str, milvus: MilvusStore, tmp_path: Path) -> None:
    milvus.create("c", **SPEC).upsert([item(1)])
    settings = Settings(store="milvus", milvus_uri=milvus_uri, data_dir=tmp_path / "data")
    with open_store(settings) as store:
        assert store.backend == "milvus"
        assert store.get("c").get("item-1").uri == "file-0.bin"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("uri", ["localhost:19530", "file:///x", "", "milvus.sqlite"])
def test_an_address_that_is_none_is_refused_at_once(uri: str) -> None:
    with pytest.raises(InvalidParameter, match="names no Milvus"):
        MilvusStore(uri)


def test_another_service_sees_definitions_names_and_label_sets(milvus_uri: str, milvus: MilvusStore) -> None:
    made = milvus.create("my-own_archive", **SPEC)
    milvus.put_alias("the-archive", "my-own_archive")
    milvus.put_label_set(LabelSet("Sounds.v1", ("rain", "a 'dog' \"x\\"), ("a {}",)))
    with MilvusStore(milvus_uri) as other:
        assert other.get("the-archive").definition == made.definition
        assert other.aliases() == {"the-archive": "my-own_archive"}
        assert other.label_sets() == milvus.label_sets() == [LabelSet("Sounds.v1", ("rain", "a 'dog' \"x\\"), ("a {}",))]
        assert other.create("my-own_archive", **SPEC).place == made.place


def test_a_collection_made_anew_is_not_written_by_who_held_the_old_one(milvus_uri: str, milvus: MilvusStore) -> None:
    old = milvus.create("c", **SPEC)
    with MilvusStore(milvus_uri) as other:
        other.delete("c")
        new = other.create("c", **{**SPEC, "space": "s2"})
        assert milvus.get("c").definition.space == "s2"
        with pytest.raises(Exception, match="was deleted"):
            old.upsert([item(1)])
        assert len(new) == 0


def test_of_two_that_make_the_same_collection_one_wins(milvus_uri: str, milvus: MilvusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process makes it between this one's look and its own making."""
    with MilvusStore(milvus_uri) as other:
        make = Connection.create_alias

        def late(connection: Connection, alias: str, place: str) -> None:
            monkeypatch.setattr(Connection, "create_alias", make)
            other.create("c", **SPEC)
            make(connection, alias, place)

        monkeypatch.setattr(Connection, "create_alias", late)
        mine = milvus.create("c", **SPEC)
        assert mine.place == other.get("c").place
        assert [one.place for one in milvus.collections()] == [mine.place]


def test_what_a_crash_left_without_a_name_is_taken_by_the_next_who_makes_it(
    milvus_uri: str, milvus: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "create_alias", dies)
        with pytest.raises(KeyboardInterrupt):
            milvus.create("c", **SPEC)
    (left,) = [place for key in milvus._entries("collection:") if milvus._milvus.has_collection(place := key.removeprefix("collection:"))]
    with MilvusStore(milvus_uri) as other:
        assert other.collections() == []
        assert "c" not in other
        elsewhere = other.create("c", **{**SPEC, "space": "s2"})  # another one of that name
        assert elsewhere.place != left
        other.delete("c")
        made = other.create("c", **SPEC)
        assert made.place == left
        made.upsert([item(1)])
        assert milvus.get("c").get("item-1").uri == "file-0.bin"
        for alias in milvus._milvus.aliases(left):  # as of one that came from a backup
            milvus._milvus.drop_alias(alias)
        assert other.create("c", **SPEC).place != left


def test_of_two_that_find_what_was_left_neither_drops_it(milvus_uri: str, milvus: MilvusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with MilvusStore(milvus_uri) as other:
        create_alias = Connection.create_alias

        def late(self: Connection, alias: str, place: str) -> None:
            with monkeypatch.context() as patched:
                patched.setattr(Connection, "create_alias", create_alias)
                assert other.create("c", **SPEC).place == place
            create_alias(self, alias, place)

        with monkeypatch.context() as patched:
            patched.setattr(Connection, "create_alias", late)
            made = milvus.create("c", **SPEC)
        made.upsert([item(1)])
        assert other.get("c").get("item-1").uri == "file-0.bin"


def test_it_is_told_when_milvus_is_down_and_works_when_it_is_back(tmp_path: Path) -> None:
    server, db, port = start_server_in_thread(str(tmp_path / "lite"), host="127.0.0.1", port=0)
    with MilvusStore(f"http://127.0.0.1:{port}", timeout_s=1.0) as store:
        collection = store.create("c", **SPEC)
        collection.upsert([item(1)])
        server.stop(grace=0).wait()
        db.close()
        uses: list[Callable[[], object]] = [
            lambda: store.get("c"),
            lambda: store.create("d", **SPEC),
            lambda: collection.upsert([item(2)]),
            lambda: collection.search(Query(vector(1))),
            lambda: len(collection),
        ]
        for use in uses:
            with pytest.raises(StoreUnavailable) as caught:
                use()
            assert (caught.value.status, caught.value.code, caught.value.retryable) == (503, "store_unavailable", True)
        server, db, _ = start_server_in_thread(str(tmp_path / "lite"), host="127.0.0.1", port=port)
        assert [each.id for each in _when_it_is_back(collection.page).items] == ["item-1"]
        assert store.get("c").search(Query(vector(1))).hits[0].id == "item-1"
    server.stop(grace=0).wait()
    db.close()


def _when_it_is_back(look: Callable[[], Page]) -> Page:
    for _ in range(200):  # gRPC waits a while, and longer each time, before it tries a lost connection again
        with contextlib.suppress(StoreUnavailable):
            return look()
        time.sleep(0.1)
    raise AssertionError("Milvus is back, and the store does not see it")


def test_nothing_is_asked_of_milvus_before_it_is_needed() -> None:
    store = MilvusStore("http://127.0.0.1:9", timeout_s=0.5)
    with pytest.raises(StoreUnavailable):
        store.collections()
    store.close()


def test_snapshots_are_refused_with_what_there_is_instead(milvus: MilvusStore) -> None:
    milvus.create("c", **SPEC)
    for use in (lambda: milvus.snapshot("c"), lambda: milvus.restore("c", "x"), lambda: milvus.delete_snapshot("x")):
        with pytest.raises(NotOffered, match=r"milvus-backup.*bindery collection export"):
            use()
    assert milvus.snapshots() == []


def test_pages_come_in_order_of_ids(in_milvus: MilvusCollection) -> None:
    in_milvus.upsert([item(n) for n in (3, 20, 1, 100)])
    first = in_milvus.page(3)
    assert [each.id for each in first.items] == ["item-1", "item-100", "item-20"]
    assert [each.id for each in in_milvus.page(3, first.cursor).items] == ["item-3"]


def test_the_plan_tells_the_index_and_whether_it_is_exact(milvus_uri: str, milvus: MilvusStore) -> None:
    in_milvus = milvus.create("things", **SPEC)
    in_milvus.upsert([item(n) for n in range(30)])
    plan = in_milvus.search(Query(vector(1), filter={"count": {"lt": 15}})).plan
    assert (plan["store"], plan["index"], plan["exact"], plan["filtered"]) == ("milvus", "flat", True, True)
    state = in_milvus.state()
    assert (state.counts, state.exact, state.index) == ({"audio": 10, "image": 10, "text": 10}, True, "flat")
    graph = Index("HNSW", {"M": 8, "efConstruction": 40}, {"ef": 64})
    with MilvusStore(milvus_uri, index=graph) as store:
        other = store.create("graph", **SPEC)
        other.upsert([item(n) for n in range(30)])
        found = other.search(Query(vector(1), 5))
        assert found.hits[0].id == "item-1"
        assert (found.plan["index"], found.plan["exact"], other.state().exact) == ("hnsw", False, False)
        with pytest.raises(NotOffered, match="FLAT"):
            other.search(Query(vector(1), exact=True))
        assert (
            store.get("things").search(Query(vector(1), exact=True)).plan["exact"] is True
        )  # as it was made, not as this store makes them


def test_a_grouped_search_says_when_it_could_not_look_at_everything(in_milvus: MilvusCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_module, "MOST_ROWS", 40)
    near = [item(n, uri="same", vector=vector(1) + 0.01 * vector(n)) for n in range(50)]
    in_milvus.upsert([*near, item(60, uri="far", vector=-vector(1))])
    found = in_milvus.search(Query(vector(1), 2, group_by="uri"))
    assert [hit.uri for hit in found] == ["same"]
    assert found.plan["exact"] is False
    assert in_milvus.search(Query(vector(1), 1, group_by="uri")).plan["exact"] is True


def test_what_is_too_long_for_a_column_fails_alone(in_milvus: MilvusCollection) -> None:
    longest = "é" * 32_000
    results = in_milvus.upsert([item(1, metadata={"note": longest + "é" * 800}), item(2, metadata={"place": longest})])
    assert [result.status for result in results] == ["failed", "created"]
    assert "at most 65535" in str(results[0].error)
    assert in_milvus.get("item-2").metadata == {"place": longest}
    assert [hit.id for hit in in_milvus.search(Query(vector(2), filter={"place": {"prefix": longest}}))] == ["item-2"]


def test_more_fields_than_columns_are_refused(milvus: MilvusStore) -> None:
    fields = {f"field.{n}": "integer" for n in range(MOST_FIELDS + 1)}
    with pytest.raises(InvalidParameter, match=f"at most {MOST_FIELDS}"):
        milvus.create("c", **{**SPEC, "fields": fields})
    fields.popitem()
    made = milvus.create("c", **{**SPEC, "fields": fields})
    made.upsert([item(1, metadata={"field.47": 5})])
    assert len(made.page(filter={"field.47": {"eq": 5}}).items) == 1
    with pytest.raises(AlreadyExists):
        milvus.create("c", **SPEC)


def test_many_items_go_in_several_requests(in_milvus: MilvusCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_module, "_REQUEST_BYTES", 5000)
    assert {result.status for result in in_milvus.upsert([item(n) for n in range(100)])} == {"created"}
    assert len(in_milvus) == 100
    assert in_milvus.delete(filter={"count": {"gte": 10}}) == 90


def test_vectors_are_those_of_the_local_store(in_milvus: MilvusCollection, collection: Any) -> None:
    items = [item(n) for n in range(20)] + [Item("long", "image", 1000 * np.ones(DIMENSION, dtype=np.float32))]
    for one in (in_milvus, collection):
        one.upsert(items)
    for each in items:
        assert np.array_equal(in_milvus.get(each.id).vector, collection.get(each.id).vector)
    ours, theirs = (one.search(Query(vector(1), 21)).hits for one in (in_milvus, collection))
    assert [hit.id for hit in ours] == [hit.id for hit in theirs]
    assert np.allclose([hit.score for hit in ours], [hit.score for hit in theirs], atol=1e-6)


def test_the_end_of_a_prefix() -> None:
    assert below_after("ab") == "ac"
    assert below_after("\ud7ff") == "\ue000"
    assert below_after("a\U0010ffff") == "b"
    assert below_after("\U0010ffff") is None
    assert below_after("") is None
