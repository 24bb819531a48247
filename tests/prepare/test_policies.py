"""Every policy field of the picture kinds flips the result, and does what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from bindery.decoded import Frames, Picture, Raster
from bindery.prepare.depth import prepare_depth
from bindery.prepare.image import prepare_image
from bindery.prepare.thermal import prepare_thermal
from bindery.prepare.video import prepare_video
from bindery.spec import DepthSpec, ImageSpec, ThermalSpec, VideoSpec
from tests.media import clips

PLAIN = {"size": 16, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
RGB = np.random.default_rng(0).integers(0, 256, (24, 33, 3), dtype=np.uint8)
PICTURE = Picture(RGB)


def image(picture: Picture = PICTURE, **fields: object) -> np.ndarray:
    return prepare_image(picture, ImageSpec.model_validate({**PLAIN, **fields}))["pixel_values"]


@pytest.mark.parametrize("fields", [{"antialias": True}, {"interpolation": "bilinear"}, {"mean": (0.5, 0, 0)}, {"std": (1, 2, 1)}])
def test_each_pixel_field_changes_the_tensor(fields: dict[str, object]) -> None:
    assert not np.allclose(image(**fields), image())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_as_pillow_applies_it_or_ignored(orientation: int) -> None:
    turned = Image.fromarray(RGB)
    turned.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(turned))
    picture = replace(PICTURE, orientation=orientation)
    assert np.array_equal(image(picture, exif="apply"), image(Picture(upright)))
    assert np.array_equal(image(picture, exif="ignore"), image())


def test_alpha_is_dropped_or_laid_on_white() -> None:
    alpha = np.zeros(RGB.shape[:2], np.uint8)
    alpha[:, :10] = 255
    picture = Picture(RGB, alpha)
    on_white = RGB.copy()
    on_white[:, 10:] = 255
    assert np.array_equal(image(picture, alpha="drop"), image())
    assert np.array_equal(image(picture, alpha="white"), image(Picture(on_white)))
    half = image(Picture(np.zeros_like(RGB), np.full(RGB.shape[:2], 128, np.uint8)), alpha="white")
    assert half == pytest.approx(127 / 255)


def test_a_picture_is_left_as_it_was() -> None:
    picture = Picture(RGB.copy(), np.full(RGB.shape[:2], 9, np.uint8), 6)
    image(picture, alpha="white", exif="apply")
    assert np.array_equal(picture.pixels, RGB)


def test_thermal_takes_pictures_and_rasters() -> None:
    spec = ThermalSpec.model_validate(PLAIN)
    gray = RGB[..., :1].repeat(3, axis=2)
    by_picture = prepare_thermal(Picture(gray), spec)["pixel_values"]
    by_raster = prepare_thermal(Raster((gray[..., 0] / 255).astype(np.float32)), spec)["pixel_values"]
    assert by_raster == pytest.approx(by_picture, abs=1e-6)
    turned = prepare_thermal(Picture(RGB, orientation=3), ThermalSpec.model_validate({**PLAIN, "exif": "apply"}))["pixel_values"]
    assert not np.allclose(turned, prepare_thermal(PICTURE, spec)["pixel_values"])


def depth(metres: np.ndarray, **fields: object) -> np.ndarray:
    tensor = prepare_depth(Raster(metres.astype(np.float32)), DepthSpec.model_validate({**PLAIN, "size": 2, **fields}))["pixel_values"]
    assert np.array_equal(tensor[0], tensor[1])
    assert np.array_equal(tensor[0], tensor[2])
    return tensor[0]


def test_depth_is_clipped_and_divided() -> None:
    metres = np.array([[0.0, 2.0], [5.0, 20.0]])
    assert depth(metres) == pytest.approx(np.array([[0.001, 0.2], [0.5, 1.0]]))
    assert depth(metres, max_depth_m=4) == pytest.approx(np.array([[0.0025, 0.5], [1.0, 1.0]]))
    assert depth(metres, max_depth_m=0) == pytest.approx(np.array([[0.0005, 0.1], [0.25, 1.0]]))
    assert depth(metres, min_depth_m=1) == pytest.approx(np.array([[0.1, 0.2], [0.5, 1.0]]))


def test_a_map_of_holes_is_finite_whatever_the_policy() -> None:
    for fields in ({}, {"max_depth_m": 0}, {"max_depth_m": 0, "min_depth_m": 0}):
        assert np.isfinite(depth(np.zeros((3, 3)), **fields)).all()


def frames(rotation: int = 0) -> Frames:
    pixels = np.stack([clips.gradient(20, 12) for _ in range(3)])
    return Frames(pixels, (0, 1, 2), (0.0, 0.1, 0.2), rotation)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_turns_counter_clockwise_or_is_ignored(rotation: int) -> None:
    spec = VideoSpec.model_validate({**PLAIN, "size": 12, "rotation": "apply"})
    turned = Frames(np.stack([np.rot90(f, rotation // 90) for f in frames().pixels]), (0, 1, 2), (0.0, 0.1, 0.2))
    applied = prepare_video(frames(rotation), spec)["pixel_values"]
    assert applied.shape == (3, 3, 12, 12)
    assert np.array_equal(applied, prepare_video(turned, spec)["pixel_values"])
    ignored = prepare_video(frames(rotation), spec.model_copy(update={"rotation": "ignore"}))["pixel_values"]
    assert np.array_equal(ignored, prepare_video(frames(), spec)["pixel_values"])


def test_video_is_normalised_and_its_filter_is_a_field() -> None:
    spec = VideoSpec.model_validate({**PLAIN, "size": 7})
    plain = prepare_video(frames(), spec)["pixel_values"]
    shifted = prepare_video(frames(), spec.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}))["pixel_values"]
    assert shifted == pytest.approx((plain - 0.5) / 0.5, abs=1e-6)
    for update in ({"interpolation": "bicubic"}, {"antialias": True}):
        assert not np.allclose(prepare_video(frames(), spec.model_copy(update=update))["pixel_values"], plain)
