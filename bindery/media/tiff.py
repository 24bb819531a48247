"""TIFF pages by tifffile: every number type read exactly, the size checked before a pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.guard import check_pixels, reading
from bindery.media.source import Source

_MAX_SAMPLES = 4
# Few and plain on purpose: each further codec is a C decoder that hostile bytes can reach. (8-bit files go to Pillow.)
_COMPRESSIONS = (1, 5, 8, 32946, 32773, 50000)  # none, LZW, deflate (two numbers), PackBits, Zstandard
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
            if page.compression == tifffile.COMPRESSION.LZW:
                _check_lzw(file, page)
            values = page.asarray(maxworkers=1)
            if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and self.samples > 1:
                values = np.moveaxis(values, 0, -1)
            return np.asarray(values.reshape(self.height, self.width, self.samples))


def open_tiff(source: Source, limits: Limits) -> TiffPage:
    """The first page's header. Raises `TooManyPixels`, `UnreadableMedia`."""
    with source.open() as file, reading(source, "TIFF"), tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        check_pixels(source.name, page.imagewidth, page.imagelength, limits)
        is_whole = page.dtype is not None and page.bitspersample in (1, 8 * np.dtype(page.dtype).itemsize)
        if not is_whole or page.imagedepth != 1 or page.samplesperpixel > _MAX_SAMPLES:
            raise UnreadableMedia(
                f"{source.name}: a TIFF of {page.samplesperpixel} samples a pixel and {page.bitspersample} bits is not a picture; "
                "save one plane of 8, 16 or 32 bits"
            )
        if np.dtype(page.dtype).itemsize > 1 and page.compression not in _COMPRESSIONS:
            packed = tifffile.COMPRESSION(page.compression).name
            raise UnreadableMedia(f"{source.name}: TIFF compression {packed} is not read; use none, LZW, deflate, PackBits or Zstandard")
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


def _check_lzw(file: BinaryIO, page: tifffile.TiffPage) -> None:
    """Raises on damaged LZW data.

    imagecodecs checks the codes of a strip only when it has to find the size out itself; tifffile states the size, and
    then damaged codes crash the process (seen with imagecodecs 2026.3). So each strip is decoded once without a size.
    """
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        imagecodecs.lzw_decode(file.read(count))
