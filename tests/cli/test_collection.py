from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from bindery.collections import Item, Store
from bindery.collections.tiers import Tiers
from bindery.vectors import normalize
from tests.cli.conftest import Run
from tests.collections.items import DIMENSION, FIELDS, item


def _fill(data_dir: Path) -> None:
    with Store(data_dir) as store:
        store.create("things", space="space-a", dimension=DIMENSION, bundle="toy", fields=FIELDS).upsert([item(n) for n in range(9)])


def test_a_collection_goes_out_and_comes_back_under_another_name(run: Run, tmp_path: Path) -> None:
    _fill(tmp_path / "data")
    done = run("collection", "export", "things", "--out", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert done.out.decode().startswith("9 items written")
    assert "unknown_collection" in run("collection", "import", "copy", tmp_path / "out").err
    done = run("collection", "import", "copy", tmp_path / "out", "--create")
    assert (done.code, done.out) == (0, b"9 read = 9 stored + 0 superseded + 0 failed\n")
    with Store(tmp_path / "data") as store:
        assert len(store.get("copy")) == 9
        assert dict(store.get("copy").definition.fields) == FIELDS
    assert run("collection", "export", "nope", "--out", tmp_path / "none").code == 1


def test_show_tells_how_each_modality_is_searched(run: Run, tmp_path: Path) -> None:
    rows = normalize(np.random.default_rng(0).standard_normal((300, DIMENSION)))
    with Store(tmp_path / "data", tiers=Tiers(exact_rows=200)) as store:
        shelf = store.create("things", space="space-a", dimension=DIMENSION, bundle="toy", fields=FIELDS)
        shelf.upsert([Item(f"i{n}", "image", row) for n, row in enumerate(rows)])
        shelf.upsert([item(2, modality="audio")])
        shelf.seal()
    done = run("collection", "show", "things")
    assert (done.code, done.err) == (0, "")
    first, audio, image = done.out.decode().splitlines()
    assert first == "things: 301 items in space space-a (bundle toy), local"
    assert audio == "  audio: 1 items, flat, 0 segments of 0 bytes, recall exact"
    assert image.startswith("  image: 300 items, ivf_pq, 1 segments of ")
    assert "by image" in image


def test_rows_that_cannot_be_taken_end_in_exit_code_3_or_1(run: Run, tmp_path: Path) -> None:
    _fill(tmp_path / "data")
    good = np.eye(DIMENSION, dtype=np.float32)[0].tolist()
    table = pa.table({"id": ["a", "b"], "modality": ["image"] * 2, "vector": [good, [0.0] * DIMENSION]})
    (tmp_path / "in").mkdir()
    parquet.write_table(table, tmp_path / "in" / "rows.parquet")
    unsaid = run("collection", "import", "things", tmp_path / "in")
    assert (unsaid.code, unsaid.err.startswith("error[space_mismatch]")) == (1, True)
    some = run("collection", "import", "things", tmp_path / "in", "--assume-space")
    assert (some.code, some.out) == (3, b"2 read = 1 stored + 0 superseded + 1 failed\n")
    assert some.err.startswith("error[invalid_parameter]: rows.parquet row 1: ")
    parquet.write_table(table.slice(1), tmp_path / "in" / "rows.parquet")
    assert run("collection", "import", "things", tmp_path / "in", "--assume-space").code == 1
    assert "make it first" in run("collection", "import", "new", tmp_path / "in", "--create", "--assume-space").err
