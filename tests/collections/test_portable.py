from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from bindery.collections import Query, Store
from bindery.collections.local import LocalCollection
from bindery.collections.portable import export_collection, import_collection, stated_definition
from bindery.errors import AlreadyExists, BinderyError, DimensionMismatch, InvalidParameter, SpaceMismatch, UnreadableMedia
from tests.collections.items import DIMENSION, FIELDS, item, vector


def _filled(collection: LocalCollection, count: int = 30) -> LocalCollection:
    collection.upsert([item(n, content_hash=f"hash-{n}") for n in range(count - 1)])
    collection.upsert([item(count - 1, uri=None, start=None, end=None, metadata={"note": {"deep": [1, None, "ü"]}})])
    return collection


def _copy(store: Store, **changes: Any) -> LocalCollection:
    given = {"space": "space-a", "dimension": DIMENSION, "bundle": "toy", "fields": FIELDS, **changes}
    return store.create("copy", **given)


def test_what_is_exported_comes_back_item_for_item(store: Store, collection: LocalCollection, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_collection(_filled(collection), out, rows_per_file=12) == 30
    assert [parquet.read_metadata(path).num_rows for path in sorted(out.iterdir())] == [12, 12, 6]
    copy = _copy(store)
    done = import_collection(copy, out)
    assert (done.read, done.stored, done.superseded, done.failed, done.rescaled) == (30, 30, 0, 0, 0)
    for was, now in zip(collection.page().items, copy.page().items, strict=True):
        for name in ("id", "modality", "uri", "start", "end", "metadata", "content_hash"):
            assert getattr(was, name) == getattr(now, name)
        assert np.allclose(was.vector, now.vector, atol=1e-3)
    wanted = Query(vector(4), 5, filter={"place": {"eq": "yard"}})
    assert [hit.id for hit in collection.search(wanted)] == [hit.id for hit in copy.search(wanted)]


def test_other_tools_find_typed_columns(collection: LocalCollection, tmp_path: Path) -> None:
    export_collection(_filled(collection), tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "part-00000.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), DIMENSION)
    assert table.schema.metadata[b"bindery.space"] == b"space-a"
    assert table["metadata.count"].to_pylist()[:3] == [0, 1, 2]
    assert table["metadata.taken"][1].as_py().isoformat() == "2026-01-02T12:00:00+00:00"
    assert stated_definition(tmp_path / "out") == collection.definition


def test_an_empty_collection_travels_too(store: Store, collection: LocalCollection, tmp_path: Path) -> None:
    assert export_collection(collection, tmp_path / "out") == 0
    assert import_collection(_copy(store), tmp_path / "out").read == 0


def test_an_export_is_not_mixed_with_another(collection: LocalCollection, tmp_path: Path) -> None:
    export_collection(collection, tmp_path / "out")
    with pytest.raises(AlreadyExists, match="empty folder"):
        export_collection(collection, tmp_path / "out")


@pytest.mark.parametrize(("changes", "error"), [({"space": "space-b"}, SpaceMismatch), ({"dimension": DIMENSION + 1}, DimensionMismatch)])
def test_vectors_of_another_kind_are_refused_whole(
    store: Store, collection: LocalCollection, tmp_path: Path, changes: dict[str, Any], error: type[BinderyError]
) -> None:
    export_collection(_filled(collection), tmp_path / "out")
    copy = _copy(store, **changes)
    with pytest.raises(error):
        import_collection(copy, tmp_path / "out", assume_space=True)
    assert len(copy) == 0


def test_bad_rows_are_told_and_the_others_go_in(collection: LocalCollection, tmp_path: Path) -> None:
    good, zero, odd = vector(1).tolist(), [0.0] * DIMENSION, [float("nan")] * DIMENSION
    columns: dict[str, Any] = {
        "id": ["good", "zero", "nan", "short", "none", "json", None, "field", "twice", "twice", "long"],
        "vector": [good, zero, odd, [1.0], None, good, good, good, good, good, [3.0] * DIMENSION],
        "metadata": [None, None, None, None, None, "{", None, '{"count": "x"}', None, None, None],
    }
    columns["modality"] = ["image"] * len(columns["id"])
    parquet.write_table(pa.table(columns), tmp_path / "foreign.parquet")
    with pytest.raises(SpaceMismatch, match="bindery index"):
        import_collection(collection, tmp_path)
    told: dict[str, str] = {}
    done = import_collection(collection, tmp_path, assume_space=True, complain=lambda where, error: told.update({where: error.code}))
    assert (done.read, done.stored, done.superseded, done.failed, done.rescaled) == (11, 3, 1, 7, 1)
    assert sorted(told) == [f"foreign.parquet row {n}" for n in range(1, 8)]
    assert {found.id for found in collection.page().items} == {"good", "twice", "long"}


@pytest.mark.parametrize("damage", [b"", b"PAR1 no more", None])
def test_a_damaged_file_is_named(collection: LocalCollection, tmp_path: Path, damage: bytes | None) -> None:
    export_collection(_filled(collection), tmp_path / "out")
    path = tmp_path / "out" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(UnreadableMedia, match=r"part-00000\.parquet"):
        import_collection(collection, tmp_path / "out")


def test_a_folder_of_neither_layout_is_told(collection: LocalCollection, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="nothing to import"):
        import_collection(collection, tmp_path / "nothing")
