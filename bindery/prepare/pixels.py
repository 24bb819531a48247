"""Pixels of one kind or another to ``pixel_values``: the last steps that image, thermal, depth and video share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bindery.decoded import Picture, Tensors
from bindery.prepare.resize import resize_crop
from bindery.spec import DepthSpec, ImageSpec, ThermalSpec

# EXIF orientation -> (mirror left-right first, then quarter turns counter-clockwise)
_TURNS = {1: (False, 0), 2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}


def still(planes: NDArray[Any], spec: ImageSpec | ThermalSpec | DepthSpec) -> Tensors:
    """One picture ``(height, width, channels)``, uint8 or float32 in 0..1, resized, cropped and normalised; one channel is repeated."""
    resized = resize_crop(planes[None], spec.size, spec.interpolation, antialias=spec.antialias, load=to_unit)[0]
    tensor = resized.transpose(2, 0, 1)  # (channels, size, size), contiguous: the resize keeps channels apart
    if len(tensor) == 1:
        tensor = tensor.repeat(3, axis=0)
    tensor -= np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    tensor /= np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return {"pixel_values": np.ascontiguousarray(tensor)}


def to_unit(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """8-bit pixels to 0..1; float pixels as they are."""
    if pixels.dtype != np.uint8:
        return pixels
    unit = pixels.astype(np.float32)
    unit /= np.float32(255.0)
    return unit


def normalize_rows(pixels: NDArray[np.float32], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """In place, for C-contiguous ``(..., width, channels)``: a whole row at a time, since three numbers at a time are slow."""
    width = pixels.shape[-2]
    rows = pixels.reshape(-1, width * len(mean))  # a view
    rows -= np.tile(np.asarray(mean, dtype=np.float32), width)
    rows /= np.tile(np.asarray(std, dtype=np.float32), width)


def colours(picture: Picture, spec: ImageSpec | ThermalSpec) -> NDArray[np.uint8]:
    """RGB ``(height, width, 3)`` after the spec's policies on transparency and EXIF orientation."""
    pixels = picture.pixels
    if picture.alpha is not None and spec.alpha == "white":
        pixels = _on_white(pixels, picture.alpha)
    if spec.exif == "apply" and picture.orientation != 1:
        is_mirrored, quarter_turns = _TURNS[picture.orientation]
        pixels = np.rot90(pixels[:, ::-1] if is_mirrored else pixels, quarter_turns)
    return pixels


def _on_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    opacity = alpha[..., None].astype(np.uint32)
    return ((pixels * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
