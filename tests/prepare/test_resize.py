"""torch's own interpolation is the oracle: the reference calls it, and bindery must not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from bindery.prepare.pixels import to_unit
from bindery.prepare.resize import Interpolation, resize_crop, resized_sides


def by_torch(pixels: np.ndarray, size: int, interpolation: str, antialias: bool, floor_ratio: bool) -> np.ndarray:
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    height, width = planes.shape[2:]
    short, long = min(height, width), max(height, width)
    scaled = math.floor((long / short) * size) if floor_ratio else int(size * long / short)
    new = (size, scaled) if height <= width else (scaled, size)
    resized = interpolate(planes, new, mode=interpolation, align_corners=False, antialias=antialias)
    top, left = round((new[0] - size) / 2), round((new[1] - size) / 2)
    return resized[:, :, top : top + size, left : left + size].permute(0, 2, 3, 1).numpy()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(1, 40),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    antialias=st.booleans(),
    floor_ratio=st.booleans(),
    seed=st.integers(0, 99),
)
def test_resize_and_crop_are_torchs(
    height: int, width: int, size: int, interpolation: Interpolation, antialias: bool, floor_ratio: bool, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    ours = resize_crop(pixels, size, interpolation, antialias=antialias, load=to_unit, floor_ratio=floor_ratio)
    theirs = by_torch(pixels, size, interpolation, antialias, floor_ratio)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 2e-5


@pytest.mark.parametrize(("height", "width"), [(1200, 1600), (1601, 333)])
@pytest.mark.parametrize("antialias", [False, True])
def test_large_pictures_are_torchs_too(height: int, width: int, antialias: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    ours = resize_crop(pixels, 224, "bicubic", antialias=antialias, load=to_unit)
    # Float32 positions near 1600 px are good to 1e-4 px, which is what separates two ways of adding them up.
    assert np.abs(ours - by_torch(pixels, 224, "bicubic", antialias, False)).max() < 5e-4


def test_pictures_of_one_size_do_not_hear_of_each_other() -> None:
    first, second = np.random.default_rng(2).integers(0, 256, (2, 1, 61, 47, 3), dtype=np.uint8)
    before = resize_crop(first, 24, "bicubic", antialias=True, load=to_unit).copy()
    resize_crop(second, 24, "bicubic", antialias=True, load=to_unit)[...] = 9
    assert np.array_equal(resize_crop(first, 24, "bicubic", antialias=True, load=to_unit), before)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 512), st.booleans())
def test_the_shorter_side_fits_and_the_longer_covers(height: int, width: int, size: int, floor_ratio: bool) -> None:
    new_height, new_width = resized_sides(height, width, size, floor_ratio=floor_ratio)
    assert min(new_height, new_width) == size
    assert (new_height >= new_width) == (height >= width) or new_height == new_width


@pytest.mark.parametrize("antialias", [False, True])
def test_a_picture_of_the_right_size_is_left_alone(antialias: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8)
    assert np.array_equal(resize_crop(pixels, 24, "bicubic", antialias=antialias, load=to_unit), to_unit(pixels))


def test_nothing_is_changed_in_place() -> None:
    pixels = np.full((1, 30, 20, 1), 0.25, np.float32)
    resize_crop(pixels, 8, "bicubic", antialias=True, load=to_unit)[...] = 9
    assert (pixels == 0.25).all()
