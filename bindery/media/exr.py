"""OpenEXR pictures of one value a pixel (depth, temperature), half or single floats."""

from __future__ import annotations

import io
import threading
from contextlib import redirect_stdout
from typing import Any, BinaryIO

import numpy as np
import OpenEXR
from numpy.typing import NDArray

from bindery.limits import Limits
from bindery.media.guard import check_pixels, reading
from bindery.media.source import Source

_VALUE_CHANNELS = ("Z", "Y", "V", "depth", "R")  # what renderers and scanners call the one value, best first

_STDOUT_LOCK = threading.Lock()  # two overlapping redirections would leave sys.stdout redirected for good


def read_exr(source: Source, limits: Limits) -> NDArray[Any]:
    """Values ``(height, width)``, or ``(height, width, channels)`` of a coloured picture. Raises `TooManyPixels`, `UnreadableMedia`."""
    with source.open() as file, reading(source, "OpenEXR"):
        low, high = OpenEXR.File(file, separate_channels=True, header_only=True, num_threads=0).header()["dataWindow"]
        width, height = (int(side) for side in np.asarray(high, dtype=np.int64) - np.asarray(low, dtype=np.int64) + 1)
        check_pixels(source.name, width, height, limits)
        file.seek(0)
        channels = _read(file).channels()
        planes = {name: np.asarray(channel.pixels) for name, channel in channels.items()}
        return _value(planes)


def _read(file: BinaryIO) -> OpenEXR.File:
    # OpenEXR prints its warning about damaged pixels to sys.stdout, where results go; the error that follows says enough.
    with _STDOUT_LOCK, redirect_stdout(io.StringIO()):
        return OpenEXR.File(file, separate_channels=True, num_threads=0)


def _value(planes: dict[str, NDArray[Any]]) -> NDArray[Any]:
    by_leaf = {name.rpartition(".")[2].lower(): plane for name, plane in planes.items()}  # "ViewLayer.Depth.Z" -> "z"
    if len(planes) == 1:
        return next(iter(planes.values()))
    for name in _VALUE_CHANNELS[:-1]:
        if name.lower() in by_leaf:
            return by_leaf[name.lower()]
    colours = [by_leaf[name] for name in "rgb" if name in by_leaf]
    if len(colours) == 3 and all(np.array_equal(colours[0], other, equal_nan=True) for other in colours[1:]):
        return colours[0]  # a gray picture saved as three equal channels
    return np.stack(list(planes.values()), axis=-1)
