from __future__ import annotations

import numpy as np
import pytest

from training.data.augment import Augment, augment, mix_weights

PICTURE = np.random.default_rng(0).standard_normal((3, 12, 20), dtype=np.float32)
SQUARE = PICTURE[:, :, :12]
CLIP = np.repeat(SQUARE[:, None], 4, axis=1)

CHANGES = [
    Augment(crop=0.4),
    Augment(flip=True),
    Augment(turn=True),
    Augment(gain=0.2, offset=0.3),
    Augment(noise=0.3),
    Augment(erase=0.5),
    Augment(roll=True),
    Augment(roll=True, roll_channels=1.0),
    Augment(shift_rows=3),
    Augment(mask_rows=0.5),
    Augment(mask_columns=0.5),
]


def test_nothing_asked_for_changes_nothing() -> None:
    assert np.array_equal(augment(PICTURE, Augment(), np.random.default_rng(0)), PICTURE)


@pytest.mark.parametrize("how", CHANGES)
def test_every_change_keeps_shape_and_input_follows_the_seed_and_does_something(how: Augment) -> None:
    before = SQUARE.copy()
    results = [augment(SQUARE, how, np.random.default_rng(seed)) for seed in range(8)]
    assert np.array_equal(SQUARE, before)
    assert all(result.shape == SQUARE.shape and result.dtype == np.float32 for result in results)
    assert np.array_equal(results[3], augment(SQUARE, how, np.random.default_rng(3)))
    assert any(not np.array_equal(result, SQUARE) for result in results)


@pytest.mark.parametrize("how", [change for change in CHANGES if not change.noise])
def test_the_frames_of_a_clip_are_changed_alike(how: Augment) -> None:
    for seed in range(5):
        changed = augment(CLIP, how, np.random.default_rng(seed))
        assert changed.shape == CLIP.shape
        for frame in range(1, 4):
            np.testing.assert_allclose(changed[:, frame], changed[:, 0], atol=1e-6)


def test_rolled_rows_hold_the_same_values_in_another_order() -> None:
    rolled = augment(PICTURE, Augment(roll=True), np.random.default_rng(1))
    assert not np.array_equal(rolled, PICTURE)
    np.testing.assert_array_equal(np.sort(rolled, axis=-1), np.sort(PICTURE, axis=-1))


def test_mixing_keeps_at_least_half_of_an_item() -> None:
    partner, share = mix_weights(64, Augment(mixup=0.4), np.random.default_rng(0))
    assert sorted(partner) == list(range(64))
    assert share.min() >= 0.5
    assert share.max() <= 1.0
