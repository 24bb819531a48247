from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from bindery.collections import Item, Query, Store, snapshots
from bindery.errors import AlreadyExists, BinderyError, SnapshotDamaged, StorageFull, UnknownCollection, UnknownSnapshot
from tests.collections.items import DIMENSION

RNG = np.random.default_rng(0)


def items(count: int, first: int = 0) -> list[Item]:
    vectors = RNG.standard_normal((count, DIMENSION)).astype(np.float32)
    return [Item(f"i{first + n}", "text", vectors[n], "uri", 1.0, 2.0, {"n": first + n, "free": [1]}, "hash") for n in range(count)]


def make(store: Store, name: str = "things") -> None:
    store.create(name, space="s", dimension=DIMENSION, bundle="toy", fields={"n": "integer"})


def test_what_was_changed_since_is_undone_and_everything_is_as_it_was(store: Store) -> None:
    make(store)
    things = store.get("things")
    things.upsert(items(50))
    before = {one.id: one for one in things.page(100).items}
    taken = store.snapshot("things")
    assert (taken.items, store.snapshots()) == (50, [taken])
    things.delete(ids=["i3"])
    things.upsert([*items(10, 5), *items(5, 100)])
    assert things.search(Query(before["i3"].vector, top_k=1)).hits[0].id != "i3"
    store.restore("things", taken.name)
    after = {one.id: one for one in things.page(100).items}
    assert list(after) == list(before)
    for id, one in after.items():
        assert np.array_equal(one.vector, before[id].vector)
        assert (one.uri, one.start, one.end, one.content_hash) == ("uri", 1.0, 2.0, "hash")
        assert dict(one.metadata) == dict(before[id].metadata)
    assert things.search(Query(before["i3"].vector, top_k=1)).hits[0].id == "i3"
    assert [hit.id for hit in things.search(Query(before["i3"].vector, filter={"n": {"eq": 7}}))] == ["i7"]
    store.restore("copy", taken.name)
    assert len(store.get("copy")) == 50
    store.delete_snapshot(taken.name)
    assert store.snapshots() == []
    for name in (taken.name, "../things", "."):
        with pytest.raises(UnknownSnapshot):
            store.restore("things", name)
    with pytest.raises(UnknownCollection):
        store.snapshot("nothing")


def test_a_process_that_dies_while_deleting_leaves_no_half_snapshot_and_its_rest_is_swept_up_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store)
    store.get("things").upsert(items(5))
    taken = store.snapshot("things")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.delete_snapshot(taken.name)
    assert store.snapshots() == []
    (rest,) = (store.data_dir / "snapshots").iterdir()
    kept = store.snapshot("things")
    assert rest.exists()
    os.utime(rest, (0, 0))
    store.snapshot("things")
    assert not rest.exists()
    store.restore("things", kept.name)


def test_a_snapshot_that_the_disk_has_no_room_for_is_told_of_and_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store)
    monkeypatch.setattr(snapshots, "to_disk", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageFull, match="for a snapshot"):
        store.snapshot("things")
    assert list((store.data_dir / "snapshots").iterdir()) == []


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "manifest"])
def test_a_damaged_snapshot_is_refused_by_the_name_of_its_file_and_changes_nothing(store: Store, harm: str) -> None:
    make(store)
    store.get("things").upsert(items(5))
    taken = store.snapshot("things")
    store.get("things").delete(ids=["i0"])
    path = store.data_dir / "snapshots" / taken.name / ("manifest.json" if harm == "manifest" else "items.sqlite")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-1]), "manifest": b"{"}[harm])
    with pytest.raises(SnapshotDamaged, match=path.name):
        store.restore("things", taken.name)
    assert len(store.get("things")) == 4


def test_a_collection_of_another_kind_is_left_alone(store: Store) -> None:
    make(store)
    taken = store.snapshot("things")
    store.create("other", space="t", dimension=DIMENSION, bundle="toy")
    with pytest.raises(AlreadyExists, match="restore under another name"):
        store.restore("other", taken.name)


def test_a_snapshot_among_writers_holds_whole_commits_and_a_restore_among_searches_shows_no_gap(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        make(store)
        things = store.get("things")
        things.upsert(items(10))
        written, searched = threading.Event(), threading.Event()
        errors: list[object] = []

        def write() -> None:
            turn = 1
            while not written.is_set():
                things.upsert(items(10, 10 * turn))  # ten in one commit
                turn += 1

        def search() -> None:
            while not searched.is_set():
                try:
                    found = len(things.search(Query(np.ones(DIMENSION, dtype=np.float32), top_k=10)))
                except BinderyError as error:
                    errors.append(error)
                else:
                    if found != 10:
                        errors.append(found)

        writer, reader = threading.Thread(target=write), threading.Thread(target=search)
        writer.start()
        reader.start()
        taken = [store.snapshot("things") for _ in range(8)]
        written.set()
        writer.join()
        for one in taken:
            assert one.items % 10 == 0
            assert len(store.restore("things", one.name)) == one.items
        searched.set()
        reader.join()
        assert errors == []
