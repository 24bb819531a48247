from __future__ import annotations

import numpy as np
import pytest

from bindery.runtime.collate import collate
from bindery.runtime.fake import FakeEncoder


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
