"""`.npy` arrays of one picture: the header is checked before anything is allocated, and no object is ever unpickled."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.guard import check_pixels, reading
from bindery.media.source import Source

_MAX_HEADER_BYTES = 4096


def read_npy(source: Source, limits: Limits) -> NDArray[Any]:
    """Values ``(height, width)`` or ``(height, width, channels)``. Raises `TooManyPixels`, `UnreadableMedia`."""
    with source.open() as file, reading(source, "a .npy array"):
        shape, dtype = _read_header(file)
        if dtype.kind not in "uifb":
            raise UnreadableMedia(f"{source.name} holds {dtype}; save whole or floating numbers")
        sides = _sides(source, shape)
        check_pixels(source.name, sides[1], sides[0], limits)
        needed, present = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, source.size_bytes - file.tell()
        if present < needed:
            raise UnreadableMedia(f"{source.name} is cut off: an array of {shape} {dtype} takes {needed} bytes, {present} are there")
        file.seek(0)
        values = npy_format.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES)
    return np.asarray(values).reshape(sides)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy_format.read_magic(file)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(file, max_header_size=_MAX_HEADER_BYTES)
    return shape, dtype


def _sides(source: Source, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1 around the picture. Raises `UnreadableMedia`."""
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    elif len(shape) == 3 and shape[2] == 1:
        shape = shape[:2]
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (2, 3, 4)):
        return shape
    raise UnreadableMedia(f"{source.name} has the shape {shape}; one picture has the shape (height, width)")
