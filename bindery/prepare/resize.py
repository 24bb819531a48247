"""Resize and centre crop as torch does them, on float32, computing only the pixels that the crop keeps.

A side is resampled by *taps*: for each output position, which input positions it reads and with what weights.
Two separable passes, rows then columns, each a small matrix product per band of output positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["bicubic", "bilinear"]
Load = Callable[[NDArray[Any]], NDArray[np.float32]]
Floats = NDArray[np.float32]

# torch's two cubic kernels: -0.75 without antialias, -0.5 with it (as Pillow)
_CUBIC_PLAIN, _CUBIC_ANTIALIAS = -0.75, -0.5
_BAND = 16  # output positions per matrix product: bounds memory, and keeps the banded matrix nearly full


@dataclass(frozen=True, slots=True)
class Taps:
    """One side's filter: output position i is the sum over k of ``weights[i, k]`` times input ``places[i, k]``."""

    places: NDArray[np.int64]  # (out, taps)
    weights: Floats  # (out, taps)


Places = slice | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Band:
    """Some output positions: ``matrix`` (out, read) times the input positions ``read``."""

    read: Places
    matrix: Floats


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that depends on the sides alone. ``columns`` count from the first of the columns in use."""

    rows: tuple[_Band, ...]
    used: Places
    used_width: int
    columns: tuple[_Band, ...]


def resized_sides(height: int, width: int, size: int, *, floor_ratio: bool = False) -> tuple[int, int]:
    """(height, width) with the shorter side at ``size`` and the longer cut to a whole number.

    ``floor_ratio``: floor(size * (long / short)), the video transform's arithmetic, in place of int(size * long / short).
    """
    short, long = min(height, width), max(height, width)
    scaled = max(math.floor((long / short) * size) if floor_ratio else int(size * long / short), size)
    return (size, scaled) if height <= width else (scaled, size)


def resize_crop(
    planes: NDArray[Any], size: int, interpolation: Interpolation, *, antialias: bool, load: Load, floor_ratio: bool = False
) -> Floats:
    """``(n, height, width, channels)`` of any dtype to ``(n, size, size, channels)`` float32, a view on memory with channels first.

    ``load`` turns a block of stored pixels into float32 (scaling, normalising) before it is filtered; 8-bit blocks become C-contiguous.
    """
    count, height, width, channels = planes.shape
    plan = _plan(height, width, size, interpolation, antialias, floor_ratio)
    used = plan.used_width
    out = np.empty((count, channels, size, used), dtype=np.float32)  # channels apart, as the tensor will have them
    for low, band in zip(range(0, size, _BAND), plan.rows, strict=True):
        block = load(_taken(_taken(planes, band.read, 1), plan.used, 2))  # (n, read, used, channels)
        flat = block.reshape(count, block.shape[1], -1)
        filtered = np.matmul(band.matrix, flat).reshape(count, len(band.matrix), used, channels)
        out[:, :, low : low + _BAND] = filtered.transpose(0, 3, 1, 2)
    return _columns(out, plan.columns, size).transpose(0, 2, 3, 1)


def _columns(planes: Floats, bands: tuple[_Band, ...], size: int) -> Floats:
    """Filters the last axis of ``(n, channels, height, width)``."""
    out = np.empty((*planes.shape[:3], size), dtype=np.float32)
    for low, band in zip(range(0, size, _BAND), bands, strict=True):
        out[..., low : low + _BAND] = np.matmul(planes[..., band.read], band.matrix.T)
    return out


def _taken(planes: NDArray[Any], places: Places, axis: int) -> NDArray[Any]:
    """A view where the places are a slice, which they are whenever a picture shrinks with antialias."""
    return planes[(slice(None),) * axis + (places,)] if isinstance(places, slice) else np.take(planes, places, axis=axis)


@lru_cache(maxsize=16)  # pictures of one camera, and frames of one video, are alike; a plan has some 100 kB
def _plan(height: int, width: int, size: int, interpolation: Interpolation, antialias: bool, floor_ratio: bool) -> _Plan:
    new_height, new_width = resized_sides(height, width, size, floor_ratio=floor_ratio)
    rows = _cropped(_taps(height, new_height, interpolation, antialias), size)
    columns = _cropped(_taps(width, new_width, interpolation, antialias), size)
    used, at = np.unique(columns.places, return_inverse=True)
    columns = Taps(at.reshape(columns.places.shape), columns.weights)
    return _Plan(
        tuple(_row_band(rows, low) for low in range(0, size, _BAND)),
        _run(used),
        len(used),
        tuple(_column_band(columns, low) for low in range(0, size, _BAND)),
    )


def _row_band(taps: Taps, low: int) -> _Band:
    places = taps.places[low : low + _BAND]
    read, at = np.unique(places, return_inverse=True)
    return _Band(_run(read), _matrix(at.reshape(places.shape), taps.weights[low : low + _BAND], len(read)))


def _column_band(taps: Taps, low: int) -> _Band:
    places = taps.places[low : low + _BAND]
    first, stop = int(places.min()), int(places.max()) + 1
    return _Band(slice(first, stop), _matrix(places - first, taps.weights[low : low + _BAND], stop - first))


def _run(places: NDArray[np.int64]) -> Places:
    """Rising places as a slice, when none is left out."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


def _matrix(places: NDArray[np.int64], weights: Floats, width: int) -> Floats:
    matrix = np.zeros((len(places), width), dtype=np.float32)
    np.add.at(matrix, (np.arange(len(places))[:, None], places), weights)  # positions clamped at an edge repeat, so weights add up
    return matrix


def _cropped(taps: Taps, size: int) -> Taps:
    first = round((len(taps.places) - size) / 2)  # Python's round half to even, as torchvision
    return Taps(taps.places[first : first + size], taps.weights[first : first + size])


def _taps(old: int, new: int, interpolation: Interpolation, antialias: bool) -> Taps:
    return _antialias_taps(old, new, interpolation) if antialias else _plain_taps(old, new, interpolation)


def _plain_taps(old: int, new: int, interpolation: Interpolation) -> Taps:
    """torch's `interpolate(align_corners=False)`: half-pixel centres, positions clamped at the edges, arithmetic in float32."""
    scale = np.float32(old) / np.float32(new)
    centre = scale * (np.arange(new, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    if interpolation == "bilinear":
        centre = np.maximum(centre, np.float32(0.0))
        reach, kernel = np.arange(2), _triangle
    else:
        reach, kernel = np.arange(-1, 3), lambda x: _cubic(x, _CUBIC_PLAIN)
    base = np.floor(centre)
    distance = (centre - base)[:, None] - reach.astype(np.float32)  # (new, taps)
    places = np.clip(base.astype(np.int64)[:, None] + reach, 0, old - 1)
    return Taps(places, kernel(np.abs(distance)))


def _antialias_taps(old: int, new: int, interpolation: Interpolation) -> Taps:
    """torch's `interpolate(antialias=True)`: the filter widens with the shrink factor, weights renormalised at the edges."""
    scale = np.float32(old) / np.float32(new)
    stretch = max(scale, np.float32(1.0))
    half = np.float32(1.0 if interpolation == "bilinear" else 2.0) * stretch
    centre = scale * (np.arange(new, dtype=np.float32) + np.float32(0.5))
    first = np.maximum((centre - half + np.float32(0.5)).astype(np.int64), 0)
    stop = np.minimum((centre + half + np.float32(0.5)).astype(np.int64), old)
    places = first[:, None] + np.arange(int((stop - first).max()))
    distance = np.abs((places - centre[:, None].astype(np.float64) + 0.5) / stretch).astype(np.float32)
    weights = _triangle(distance) if interpolation == "bilinear" else _cubic(distance, _CUBIC_ANTIALIAS)
    weights = np.where(places < stop[:, None], weights, np.float32(0.0))
    return Taps(np.minimum(places, old - 1), weights / weights.sum(axis=1, keepdims=True, dtype=np.float32))


def _triangle(x: Floats) -> Floats:
    return np.asarray(np.maximum(np.float32(1.0) - x, np.float32(0.0)), dtype=np.float32)


def _cubic(x: Floats, a: float) -> Floats:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.asarray(np.where(x <= 1, near, np.where(x < 2, far, 0.0)), dtype=np.float32)
