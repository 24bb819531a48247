"""Frames -> ``pixel_values`` (3, frames, size, size) float32: normalised first, then resized, as the reference does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bindery.decoded import Frames, Tensors
from bindery.prepare.pixels import normalize_rows, to_unit
from bindery.prepare.resize import resize_crop
from bindery.spec import VideoSpec


def prepare_video(frames: Frames, spec: VideoSpec) -> Tensors:
    pixels = frames.pixels  # (frames, height, width, 3)
    if spec.rotation == "apply" and frames.rotation:
        pixels = np.rot90(pixels, frames.rotation // 90, axes=(1, 2))  # counter-clockwise

    def load(block: NDArray[Any]) -> NDArray[np.float32]:
        unit = to_unit(block)  # an array of its own, since frames are 8-bit
        normalize_rows(unit, spec.mean, spec.std)
        return unit

    resized = resize_crop(pixels, spec.size, spec.interpolation, antialias=spec.antialias, load=load, floor_ratio=True)
    return {"pixel_values": np.ascontiguousarray(resized.transpose(3, 0, 1, 2))}  # (3, frames, size, size)
