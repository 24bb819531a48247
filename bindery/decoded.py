"""What decoding gives and preparation takes: plain arrays at the file's own size and rate.

These four shapes are all that `media` and `prepare` share, so that neither imports the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]
"""One item's model inputs by name, without the batch axis."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A still picture, not rotated and not composited: policies of the spec decide on both."""

    pixels: NDArray[np.uint8]  # (height, width, 3) RGB; gray is repeated
    alpha: NDArray[np.uint8] | None = None  # (height, width), 255 = opaque
    orientation: int = 1  # EXIF orientation 1..8


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames that were asked for, in display order."""

    pixels: NDArray[np.uint8]  # (frames, height, width, 3), as stored (rotation not applied)
    indices: tuple[int, ...]  # which frame of the (part of the) file each row is
    times_s: tuple[float, ...]  # presentation time of each row, seconds from the start of the file
    rotation: int = 0  # degrees counter-clockwise that a player would turn the picture: 0, 90, 180, 270


@dataclass(frozen=True, slots=True)
class Waveform:
    """Samples in [-1, 1] at the file's own rate."""

    samples: NDArray[np.float32]  # (channels, samples)
    rate: int  # Hz


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a file lasts, and how long the stream in it that counts (its picture or its sound) does."""

    file_s: float
    stream_s: float


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where the scene changes in a stretch of a video, and where the stretch ended; seconds from the file's first frame."""

    times_s: tuple[float, ...]  # of the first frame of each new scene
    until_s: float


@dataclass(frozen=True, slots=True)
class Raster:
    """One measured value a pixel: metres for depth; 0..1 of the stated range for thermal."""

    values: NDArray[np.float32]  # (height, width)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One item ready for its encoder, with what it cost in the units that users count."""

    tensors: Tensors
    usage: dict[str, float]  # any of: tokens, pixels, audio_seconds, video_frames, bytes
    truncated: bool = False  # text beyond the tower's length was cut
