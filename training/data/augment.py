"""Augmentation: random changes to tensors that are already prepared, so that preparation stays the one that serving uses.

Each change is one field of `Augment`; a recipe names those it wants. All frames of a clip are changed alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Pixels = NDArray[np.float32]
"""``(channels, height, width)`` or ``(channels, frames, height, width)``."""


class Augment(BaseModel):
    """Which changes, and how strong. Every default is off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: float = Field(1.0, gt=0, le=1, description="least share of the area that a random crop keeps; resized back")
    flip: bool = Field(False, description="left and right, every other time")
    turn: bool = Field(False, description="quarter turns, for pictures from above")
    gain: float = Field(0.0, ge=0, lt=1, description="values times 1 ± gain")
    offset: float = Field(0.0, ge=0, description="values plus ± offset, in units of the prepared tensor")
    noise: float = Field(0.0, ge=0, description="greatest deviation of added normal noise, in units of the prepared tensor")
    erase: float = Field(0.0, ge=0, lt=1, description="greatest share of height and of width of one rectangle set to 0")
    roll: bool = Field(False, description="shift along the last axis by any amount, what leaves at one end enters at the other")
    roll_channels: float = Field(
        0.0, ge=0, le=1, description="how often each channel is rolled by itself: the three windows of a long sound"
    )
    shift_rows: int = Field(
        0, ge=0, description="shift along the height by up to so many rows, the edge repeated: pitch in log-mel pictures"
    )
    mask_rows: float = Field(0.0, ge=0, lt=1, description="greatest share of the rows set to the mean")
    mask_columns: float = Field(0.0, ge=0, lt=1, description="greatest share of the columns set to the mean")
    mixup: float = Field(0.0, ge=0, description="Beta(a, a) of mixing two items of a batch; 0: off. Their captions are mixed as targets")


def augment(pixels: Pixels, how: Augment, rng: np.random.Generator) -> Pixels:
    """A changed copy (or ``pixels`` itself when nothing is asked for). Draws from ``rng`` only."""
    if how.crop < 1:
        pixels = _crop(pixels, how.crop, rng)
    if how.flip and rng.random() < 0.5:
        pixels = pixels[..., ::-1]
    if how.turn:
        pixels = np.rot90(pixels, int(rng.integers(4)), axes=(-2, -1))
    if how.roll:
        pixels = _roll(pixels, rng.random() < how.roll_channels, rng)
    if how.shift_rows:
        pixels = _shift_rows(pixels, int(rng.integers(-how.shift_rows, how.shift_rows + 1)))
    if how.gain or how.offset:
        pixels = pixels * np.float32(1 + how.gain * rng.uniform(-1, 1)) + np.float32(how.offset * rng.uniform(-1, 1))
    if how.noise:
        pixels = pixels + np.float32(how.noise * rng.random()) * rng.standard_normal(pixels.shape, dtype=np.float32)
    if how.mask_rows:
        pixels = _mask(pixels, -2, how.mask_rows, rng)
    if how.mask_columns:
        pixels = _mask(pixels, -1, how.mask_columns, rng)
    if how.erase:
        pixels = _erase(pixels, how.erase, rng)
    return np.ascontiguousarray(pixels)


def mix_weights(count: int, how: Augment, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A partner for each row of a batch and the row's own share in [0.5, 1], ``(count,)`` each."""
    share = rng.beta(how.mixup, how.mixup, size=count)
    return rng.permutation(count), np.maximum(share, 1 - share).astype(np.float32)


def _crop(pixels: Pixels, least: float, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[-2:]
    area = rng.uniform(least, 1)
    stretch = np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
    tall = min(height, max(1, round(height * np.sqrt(area / stretch))))
    wide = min(width, max(1, round(width * np.sqrt(area * stretch))))
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    part: NDArray[Any] = np.ascontiguousarray(pixels[..., top : top + tall, left : left + wide])
    planes = torch.from_numpy(part).reshape(1, -1, tall, wide)  # (1, channels [* frames], tall, wide)
    back = F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    return back.reshape(pixels.shape).numpy()


def _roll(pixels: Pixels, each_channel: bool, rng: np.random.Generator) -> Pixels:
    width = pixels.shape[-1]
    if not each_channel:
        return np.roll(pixels, rng.integers(width), axis=-1)
    return np.stack([np.roll(channel, rng.integers(width), axis=-1) for channel in pixels])


def _shift_rows(pixels: Pixels, rows: int) -> Pixels:
    height = pixels.shape[-2]
    return pixels[..., np.clip(np.arange(height) + rows, 0, height - 1), :]


def _mask(pixels: Pixels, axis: int, greatest: float, rng: np.random.Generator) -> Pixels:
    length = pixels.shape[axis]
    size = int(rng.uniform(0, greatest) * length)
    start = int(rng.integers(length - size + 1))
    masked = pixels.copy()
    where = (..., slice(start, start + size), slice(None)) if axis == -2 else (..., slice(start, start + size))
    masked[where] = pixels.mean()
    return masked


def _erase(pixels: Pixels, greatest: float, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[-2:]
    tall, wide = int(rng.uniform(0, greatest) * height), int(rng.uniform(0, greatest) * width)
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    erased = pixels.copy()
    erased[..., top : top + tall, left : left + wide] = 0
    return erased
