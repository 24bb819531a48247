"""Rasters: depth maps in metres, and thermal pictures, from PNG, TIFF, `.npy` and EXR."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bindery.decoded import Picture, Raster
from bindery.errors import AmbiguousDepth, EmptyMedia, InvalidParameter, UnreadableMedia
from bindery.limits import Limits
from bindery.media import image
from bindery.media.exr import read_exr
from bindery.media.finite import to_float32
from bindery.media.npy import read_npy
from bindery.media.sniff import require_type
from bindery.media.source import Source
from bindery.media.tiff import open_tiff

DEPTH_TYPES = ("image/png", "image/tiff", "application/x-npy", "image/x-exr", "image/jpeg", "image/webp", "image/bmp", "image/gif")
THERMAL_TYPES = (*image.MEDIA_TYPES, "application/x-npy", "image/x-exr")

_MILLIMETRES = 1000
_BAND_ROWS = 256


def decode_depth(
    source: Source,
    limits: Limits,
    *,
    unit: Literal["m", "mm"] | None,
    scale: float | None,
    eight_bit: Literal["reject", "millimetres"],
) -> Raster:
    """Distances in metres, float32; holes, not-a-number and infinity are 0.

    ``scale`` (metres a stored unit) stands over ``unit``; with neither, integers are millimetres and floats metres.
    Raises `AmbiguousDepth` for 8-bit files without a stated scale and for colour-mapped ones, `EmptyMedia` when nothing was measured.
    """
    stored = _read_values(source, require_type(source, DEPTH_TYPES, "depth"), limits)
    if stored.ndim != 2:
        raise AmbiguousDepth(
            f"{source.name} has {stored.shape[2]} channels: a coloured picture of depth does not say which colour is how far; "
            "send the measured values as a 16-bit PNG (millimetres), .npy, TIFF or EXR (metres)"
        )
    if stored.dtype.itemsize == 1 and unit is None and scale is None and eight_bit == "reject":
        raise AmbiguousDepth(
            f"{source.name} holds 8-bit values, which do not say how far they reach; "
            "state depth_scale (metres a stored unit) or depth_unit (m or mm)"
        )
    _check_measured(source, stored)
    return Raster(_metres(stored, unit, scale))


def decode_thermal(source: Source, limits: Limits, *, range_min: float | None, range_max: float | None) -> Picture | Raster:
    """A rendered picture (8-bit or colour) as it is; radiometric values (16-bit, float) mapped so that the range is 0..1.

    Raises `InvalidParameter` for radiometric files when no range is stated, `EmptyMedia` when nothing in them was measured.
    """
    media_type = require_type(source, THERMAL_TYPES, "thermal")
    if media_type in image.MEDIA_TYPES and not _is_radiometric(source, media_type, limits):
        return image.decode_picture(source, limits)
    stored = _read_values(source, media_type, limits)
    if stored.ndim != 2 or stored.dtype.itemsize == 1:
        return _rendered(source, stored)
    _check_measured(source, stored)
    if range_min is None or range_max is None:
        low, high = _span(stored)
        raise InvalidParameter(
            f"{source.name} holds radiometric values ({stored.dtype}, {low:g} to {high:g}); "
            "state range_min and range_max, the values shown black and white",
            pointer="/options/range_min",
        )
    if range_max <= range_min:
        raise InvalidParameter(
            f"range_max is {range_max:g}; it must be greater than range_min, {range_min:g}", pointer="/options/range_max"
        )
    return Raster(_shown(stored, range_min, range_max))


def _shown(stored: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """``low`` to ``high`` as 0..1, in float64 for wide integers, a band of rows at a time to keep memory flat."""
    shown = np.empty(stored.shape, dtype=np.float32)
    for row in range(0, len(stored), _BAND_ROWS):
        band = stored[row : row + _BAND_ROWS]
        with np.errstate(invalid="ignore", over="ignore"):  # not-a-number stays what it is until the end
            shown[row : row + _BAND_ROWS] = np.clip(to_float32((band.astype(np.float64) - low) / (high - low)), 0.0, 1.0)
    return shown


def _metres(stored: NDArray[Any], unit: Literal["m", "mm"] | None, scale: float | None) -> NDArray[np.float32]:
    values = to_float32(stored)
    if scale is not None:
        values = to_float32(values * np.float64(scale))
    elif (unit or ("m" if stored.dtype.kind == "f" else "mm")) == "mm":
        values = values / np.float32(_MILLIMETRES)
    return values


def _check_measured(source: Source, stored: NDArray[Any]) -> None:
    if stored.dtype.kind == "f" and not np.isfinite(stored).any():
        raise EmptyMedia(f"{source.name} holds no measured value: every one is not-a-number or infinite")


def _read_values(source: Source, media_type: str, limits: Limits) -> NDArray[Any]:
    """Stored values, ``(height, width)``, or ``(height, width, channels)`` for files of colours."""
    if media_type == "application/x-npy":
        return read_npy(source, limits)
    if media_type == "image/x-exr":
        return read_exr(source, limits)
    if media_type == "image/tiff":
        page = open_tiff(source, limits)
        values = page.read()
        return values[..., 0] if page.samples == 1 and not page.has_palette else values.repeat(3, axis=2) if page.samples == 1 else values
    with image.open_picture(source, media_type, limits) as picture:
        picture.load()
        is_gray = picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16")
        return np.asarray(picture if is_gray else picture.convert("RGB"))


def _is_radiometric(source: Source, media_type: str, limits: Limits) -> bool:
    if media_type == "image/tiff":
        page = open_tiff(source, limits)
        return page.samples == 1 and not page.is_eight_bit
    with image.open_picture(source, media_type, limits) as picture:
        return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _rendered(source: Source, stored: NDArray[Any]) -> Picture:
    if stored.ndim == 3 and stored.shape[2] != 3:
        raise UnreadableMedia(
            f"{source.name} has {stored.shape[2]} channels; a thermal array has the shape (height, width) or (height, width, 3)"
        )
    pixels = image.to_eight_bit(stored)
    return Picture(np.ascontiguousarray(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)))


def _span(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
