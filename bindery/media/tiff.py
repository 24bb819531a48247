"""TIFF pages by tifffile: every number type read exactly, the size checked before a pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.guard import check_pixels, reading
from bindery.media.source import Source

_MAX_SAMPLES = 4
_MINISWHITE = 0


@dataclass(frozen=True, slots=True)
class TiffPage:
    """What the header of the first page says."""

    source: Source
    width: int
    height: int
    samples: int
    dtype: np.dtype[Any]
    white_is_zero: bool
    has_palette: bool
    orientation: int

    @property
    def is_eight_bit(self) -> bool:
        return self.dtype in (np.dtype(np.uint8), np.dtype(np.bool_))

    def read(self) -> NDArray[Any]:
        """The page's values, ``(height, width, samples)``, in the file's number type. Raises `UnreadableMedia`."""
        with self.source.open() as file, reading(self.source, "TIFF"), tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            values = page.asarray(maxworkers=1)
            if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and self.samples > 1:
                values = np.moveaxis(values, 0, -1)
            return np.asarray(values.reshape(self.height, self.width, self.samples))


def open_tiff(source: Source, limits: Limits) -> TiffPage:
    """The first page's header. Raises `TooManyPixels`, `UnreadableMedia`."""
    with source.open() as file, reading(source, "TIFF"), tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        check_pixels(source.name, page.imagewidth, page.imagelength, limits)
        if page.dtype is None or page.imagedepth != 1 or page.samplesperpixel > _MAX_SAMPLES:
            raise UnreadableMedia(
                f"{source.name}: a TIFF of {page.samplesperpixel} samples a pixel and {page.bitspersample} bits is not a picture; "
                "save one plane of 8, 16 or 32 bits"
            )
        orientation = page.tags.valueof(274, default=1)
        return TiffPage(
            source=source,
            width=page.imagewidth,
            height=page.imagelength,
            samples=page.samplesperpixel,
            dtype=np.dtype(page.dtype),
            white_is_zero=page.photometric == _MINISWHITE,
            has_palette=page.photometric == tifffile.PHOTOMETRIC.PALETTE,
            orientation=orientation if orientation in range(1, 9) else 1,
        )
