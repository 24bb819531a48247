from __future__ import annotations

import numpy as np
import pytest

from bindery.runtime.collate import collate, snapped
from tests.fakeencoder import FakeEncoder


def test_texts_are_padded_to_the_longest_and_no_further() -> None:
    items = [
        {"input_ids": np.array([7, 8, 9], np.int64), "attention_mask": np.ones(3, np.int64)},
        {"input_ids": np.array([7], np.int64), "attention_mask": np.ones(1, np.int64)},
    ]
    batch = collate(items, pad_id=5)
    assert batch["input_ids"].tolist() == [[7, 8, 9], [7, 5, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_pictures_are_stacked() -> None:
    items = [{"pixel_values": np.full((3, 2, 2), i, np.float32)} for i in range(4)]
    assert collate(items)["pixel_values"].shape == (4, 3, 2, 2)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_fake_encoder_gives_each_row_its_own_vector_whatever_its_neighbours(rows: int) -> None:
    pixels = np.random.default_rng(1).standard_normal((rows, 3, 2, 2)).astype(np.float32)
    encoder = FakeEncoder(dimension=8)
    together = encoder.encode({"pixel_values": pixels})
    alone = np.concatenate([encoder.encode({"pixel_values": pixels[i : i + 1]}) for i in range(rows)])
    assert np.array_equal(together, alone)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "wanted"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (7, 8), (9, 12), (12, 12), (13, 16), (17, 20), (20, 20), (21, 21)]
)
def test_batches_snap_to_few_sizes_by_repeating_the_last_row(rows: int, wanted: int) -> None:
    ids = np.arange(rows * 2).reshape(rows, 2)
    found = snapped({"input_ids": ids, "attention_mask": np.ones_like(ids)}, 20)
    assert found["input_ids"].shape == found["attention_mask"].shape == (wanted, 2)
    np.testing.assert_array_equal(found["input_ids"][:rows], ids)
    assert (found["input_ids"][rows:] == ids[-1]).all()
