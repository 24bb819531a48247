from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from numpy.typing import NDArray

from bindery.collections.local import LocalCollection
from bindery.collections.portable import import_collection
from bindery.errors import DimensionMismatch, InvalidParameter, SpaceMismatch, UnreadableMedia
from tests.collections.items import DIMENSION, vector


def _write(folder: Path, short: str, number: int, vectors: NDArray[np.floating], names: list[str]) -> None:
    (folder / f"{short}_emb").mkdir(parents=True, exist_ok=True)
    (folder / "metadata").mkdir(exist_ok=True)
    np.save(folder / f"{short}_emb" / f"{short}_emb_{number}.npy", vectors, allow_pickle=False)
    table = pa.table({"image_path": names, "caption": [f"about {name}" for name in names], "similarity": [float("nan")] * len(names)})
    parquet.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    whole = tmp_path / "clip"
    for number in range(2):
        names = [f"{number}-{index}.jpg" for index in range(4)]
        for seed, short in enumerate(("img", "text", "audio")):
            rows = np.stack([vector(100 * seed + 10 * number + index) for index in range(4)]).astype(np.float16)
            _write(whole, short, number, rows, names)
    return whole


def test_arrays_and_metadata_become_items_of_each_modality(collection: LocalCollection, folder: Path) -> None:
    done = import_collection(collection, folder, assume_space=True)
    assert (done.read, done.stored, done.failed, done.rescaled) == (24, 24, 0, 0)
    assert collection.state().counts == {"audio": 8, "image": 8, "text": 8}
    found = collection.get("image/1-2.jpg")
    assert (found.uri, found.metadata) == ("1-2.jpg", {"image_path": "1-2.jpg", "caption": "about 1-2.jpg"})
    assert float(found.vector @ vector(12)) > 0.999
    assert float(collection.get("text/1-2.jpg").vector @ vector(112)) > 0.999


def test_arrays_state_no_space_so_it_must_be_said(collection: LocalCollection, folder: Path) -> None:
    with pytest.raises(SpaceMismatch, match=r"--assume-space.*bindery index"):
        import_collection(collection, folder)
    assert len(collection) == 0


def test_bad_rows_are_told_and_the_others_go_in(collection: LocalCollection, folder: Path) -> None:
    rows = np.stack([vector(1), 5 * vector(2), np.zeros(DIMENSION, np.float32), np.full(DIMENSION, np.inf, np.float32)])
    _write(folder, "img", 0, rows, ["a", "b", "c", "d"])
    told: list[str] = []
    done = import_collection(collection, folder, assume_space=True, complain=lambda where, _: told.append(where))
    assert (done.stored, done.failed, done.rescaled) == (22, 2, 1)
    assert told == ["img_emb_0.npy row 2", "img_emb_0.npy row 3"]
    assert np.isclose(float(collection.get("image/b").vector @ vector(2)), 1, atol=1e-3)


def test_nothing_is_unpickled(collection: LocalCollection, folder: Path) -> None:
    np.save(folder / "img_emb" / "img_emb_0.npy", np.array([{"a": 1}] * 4, dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableMedia, match=r"img_emb_0\.npy"):
        import_collection(collection, folder, assume_space=True)


def test_files_that_do_not_belong_together_are_refused_before_any_row(collection: LocalCollection, folder: Path) -> None:
    last = folder / "text_emb" / "text_emb_1.npy"
    np.save(last, np.zeros((3, DIMENSION), np.float32))
    with pytest.raises(InvalidParameter, match=r"text_emb_1\.npy has 3 rows, metadata_1\.parquet has 4"):
        import_collection(collection, folder, assume_space=True)
    np.save(last, np.zeros((4, DIMENSION + 1), np.float32))
    with pytest.raises(DimensionMismatch):
        import_collection(collection, folder, assume_space=True)
    np.save(last, np.zeros((4, DIMENSION), np.int32))
    with pytest.raises(InvalidParameter, match="int32"):
        import_collection(collection, folder, assume_space=True)
    last.write_bytes(last.read_bytes()[:-9])
    with pytest.raises(UnreadableMedia):
        import_collection(collection, folder, assume_space=True)
    (folder / "metadata" / "metadata_0.parquet").unlink()
    with pytest.raises(InvalidParameter, match=r"metadata_0\.parquet"):
        import_collection(collection, folder, assume_space=True)
    assert len(collection) == 0
