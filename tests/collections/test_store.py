from __future__ import annotations

from pathlib import Path

import pytest

from bindery.collections import CollectionStore, LabelSet, Query, Store, check_space
from bindery.errors import AlreadyExists, InvalidParameter, SpaceMismatch, TooManyItems, UnknownCollection, UnknownLabelSet
from bindery.limits import Limits
from tests.collections.items import DIMENSION, FIELDS, item, vector


@pytest.fixture
def store(either_store: CollectionStore) -> CollectionStore:
    return either_store


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        made = store.create("c", space="s", dimension=DIMENSION, bundle="b", fields=FIELDS)
        made.upsert([item(n) for n in range(20)])
        store.put_label_set(LabelSet("sounds", ("rain", "dog"), ("a {}",)))
        before = made.search(Query(vector(1), 20)).hits
    with Store(tmp_path) as store:
        again = store.get("c")
        assert again.definition == made.definition
        assert [(hit.id, hit.score) for hit in again.search(Query(vector(1), 20))] == [(hit.id, hit.score) for hit in before]
        assert store.label_set("sounds") == LabelSet("sounds", ("rain", "dog"), ("a {}",))


def test_creating_again_is_no_error_unless_it_differs(store: CollectionStore) -> None:
    first = store.create("c", space="s", dimension=8, bundle="b", fields={"a": "keyword", "b": "number"})
    assert store.create("c", space="s", dimension=8, bundle="b", fields={"b": "number", "a": "keyword"}) is first
    with pytest.raises(AlreadyExists, match=r"fields a: keyword, b: number, asked for was .* fields none"):
        store.create("c", space="s", dimension=8, bundle="b")
    with pytest.raises(AlreadyExists, match=r"space s, .* space t"):
        store.create("c", space="t", dimension=8, bundle="b", fields={"a": "keyword", "b": "number"})


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a b", "a/b", "..", "é", "a" * 64, "a\n"])
def test_a_name_that_is_no_name_is_refused(store: CollectionStore, name: str) -> None:
    with pytest.raises(InvalidParameter, match="name"):
        store.create(name, space="s", dimension=8, bundle="b")


@pytest.mark.parametrize(
    "fields", [{"id": "keyword"}, {"and": "keyword"}, {"a b": "keyword"}, {"": "keyword"}, {"a": "text"}, {'a"': "keyword"}]
)
def test_a_field_that_cannot_be_is_refused(store: CollectionStore, fields: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match="field"):
        store.create("c", space="s", dimension=8, bundle="b", fields=fields)
    assert "c" not in store


def test_unknown_names_are_told(store: CollectionStore) -> None:
    for use in (store.get, store.delete):
        with pytest.raises(UnknownCollection, match="'nope'"):
            use("nope")
    for look in (store.label_set, store.delete_label_set):
        with pytest.raises(UnknownLabelSet, match="'nope'"):
            look("nope")


def test_asking_a_directory_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    with pytest.raises(UnknownCollection, match="no collections in"):
        Store(tmp_path / "typo", make=False)
    assert not (tmp_path / "typo").exists()


def test_a_collection_that_another_process_made_anew_is_the_new_one(tmp_path: Path) -> None:
    with Store(tmp_path) as here, Store(tmp_path) as there:
        here.create("c", space="s", dimension=DIMENSION, bundle="b").upsert([item(1, metadata={})])
        here.get("c").search(Query(vector(1)))
        there.delete("c")
        with pytest.raises(UnknownCollection):
            here.get("c")
        there.create("c", space="s2", dimension=DIMENSION, bundle="b")
        assert here.get("c").definition.space == "s2"
        assert here.get("c").search(Query(vector(1))).hits == []


def test_collections_are_listed_by_name_and_end_at_a_limit(tmp_path: Path) -> None:
    with Store(tmp_path, Limits(collections=2)) as store:
        for name in ("b", "a"):
            store.create(name, space="s", dimension=8, bundle="x")
        assert [each.definition.name for each in store.collections()] == ["a", "b"]
        with pytest.raises(TooManyItems):
            store.create("c", space="s", dimension=8, bundle="x")
        store.create("a", space="s", dimension=8, bundle="x")


def test_collections_do_not_see_each_other(store: CollectionStore) -> None:
    one = store.create("one", space="s", dimension=DIMENSION, bundle="b", fields=FIELDS)
    two = store.create("two", space="s", dimension=DIMENSION, bundle="b", fields=FIELDS)
    one.upsert([item(1), item(2)])
    two.upsert([item(1, metadata={"place": "elsewhere"})])
    assert one.delete(filter={"place": {"eq": "elsewhere"}}) == 0
    assert [hit.id for hit in two.search(Query(vector(1), 10))] == ["item-1"]
    store.delete("one")
    assert two.get("item-1").metadata == {"place": "elsewhere"}
    assert store.create("one", space="s", dimension=DIMENSION, bundle="b").search(Query(vector(1))).hits == []


def test_state_counts_items_memory_and_a_share_of_the_file(local_store: Store) -> None:
    one = local_store.create("one", space="s", dimension=DIMENSION, bundle="b", fields=FIELDS)
    assert (one.state().items, one.state().disk_bytes, one.state().memory_bytes) == (0, 0, 0)
    one.upsert([item(n) for n in range(30)])
    whole = one.state().disk_bytes
    assert whole > 30 * 2 * DIMENSION
    local_store.create("two", space="s", dimension=DIMENSION, bundle="b", fields=FIELDS).upsert([item(n) for n in range(10)])
    assert local_store.get("two").state().disk_bytes == pytest.approx(one.state().disk_bytes / 3, abs=1)
    one.search(Query(vector(1)))
    assert one.state().memory_bytes >= 30 * 2 * DIMENSION
    assert one.state().counts == {"audio": 10, "image": 10, "text": 10}


def test_label_sets_are_replaced_listed_and_deleted(store: CollectionStore) -> None:
    store.put_label_set(LabelSet("b", ("x",)))
    store.put_label_set(LabelSet("a", ("x", "y"), ("{}",)))
    store.put_label_set(LabelSet("b", ("z",)))
    assert store.label_sets() == [LabelSet("a", ("x", "y"), ("{}",)), LabelSet("b", ("z",))]
    store.delete_label_set("a")
    assert store.label_sets() == [LabelSet("b", ("z",))]


def test_another_space_is_refused_with_both_named(store: CollectionStore) -> None:
    definition = store.create("c", space="space-a", dimension=8, bundle="starter").definition
    check_space(definition, "space-a", "bundle 'copy'")
    with pytest.raises(SpaceMismatch, match=r"space-a .*'starter'.* bundle 'huge' gives space space-b.*index the files again"):
        check_space(definition, "space-b", "bundle 'huge'")
