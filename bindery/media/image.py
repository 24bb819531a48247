"""Pictures: JPEG, PNG, WebP, GIF, TIFF, BMP in any mode become 8-bit RGB. Never rotated or composited here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from bindery.decoded import Picture
from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.finite import to_float32
from bindery.media.guard import check_pixels, reading
from bindery.media.sniff import require_type
from bindery.media.source import Source
from bindery.media.tiff import TiffPage, open_tiff

# The allow-list of formats. Calling the plugins directly, and not `Image.open`, leaves Pillow's process-wide
# MAX_IMAGE_PIXELS and its warning out of it: `check_pixels` stands in its place, with this server's limits.
_PLUGINS: dict[str, Callable[[BinaryIO], Image.Image]] = {
    "image/jpeg": lambda file: JpegImagePlugin.jpeg_factory(file, ""),
    "image/png": lambda file: PngImagePlugin.PngImageFile(file, ""),
    "image/webp": lambda file: WebPImagePlugin.WebPImageFile(file, ""),
    "image/gif": lambda file: GifImagePlugin.GifImageFile(file, ""),
    "image/tiff": lambda file: TiffImagePlugin.TiffImageFile(file, ""),
    "image/bmp": lambda file: BmpImagePlugin.BmpImageFile(file, ""),
}
MEDIA_TYPES = tuple(_PLUGINS)
_ORIENTATION = 0x0112
_JPEG_SCANS = 100  # encoders write about ten; each one more is another pass over all pixels, for a few bytes of file


def decode_picture(source: Source, limits: Limits) -> Picture:
    """The picture of a file, the first frame of an animation. Raises `UnsupportedMedia`, `TooManyPixels`, `UnreadableMedia`."""
    media_type = require_type(source, MEDIA_TYPES, "an image")
    if media_type == "image/tiff":
        # Pillow cuts 16-bit colour to 8 bits and knows no 16- or 64-bit floats; tifffile reads both exactly.
        page = open_tiff(source, limits)
        if not page.is_eight_bit:
            return _from_tiff(source, page)
    with open_picture(source, media_type, limits) as image:
        return _from_pillow(image)


@contextmanager
def open_picture(source: Source, media_type: str, limits: Limits) -> Iterator[Image.Image]:
    """A Pillow image whose size has been checked and whose pixels are not yet decoded."""
    what = media_type.partition("/")[2].upper()
    if media_type == "image/jpeg":
        _check_scans(source)
    with source.open() as file, reading(source, what), _PLUGINS[media_type](file) as image:
        check_pixels(source.name, image.width, image.height, limits)
        yield image


def to_eight_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers of any type scaled to 0..255. White is the type's maximum for 8 and 16 bits.

    Wider and floating types have no agreed white: it is the first of 1 (floats only), 255, 65535 and the array's own
    maximum that nothing exceeds. Values below 0 and not-a-number are black.
    """
    if values.dtype == np.uint8:
        return np.asarray(values)
    if values.dtype == np.bool_:
        return np.asarray(values * np.uint8(255), dtype=np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        # round(x / 257) in integers: 65535 is 255, nothing wraps
        return np.asarray((values.astype(np.uint32) + 128) // 257, dtype=np.uint8)
    numbers = to_float32(values)
    top = float(numbers.max(initial=0.0))
    whites = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    white = next((w for w in whites if top <= w), top)
    return np.asarray(np.rint(np.clip(numbers, 0.0, white) * (255.0 / white)), dtype=np.uint8)


def _check_scans(source: Source) -> None:
    """Raises `UnreadableMedia` for a JPEG of very many scans. Their marker cannot occur inside their data, so counting it is enough."""
    scans, last = 0, b""
    with source.open() as file:
        while block := file.read(1 << 20):
            scans += block.count(b"\xff\xda") + (last == b"\xff" and block[:1] == b"\xda")
            last = block[-1:]
    if scans > _JPEG_SCANS:
        raise UnreadableMedia(f"{source.name} is a JPEG of {scans} scans; at most {_JPEG_SCANS} are taken: save it anew")


def _from_pillow(image: Image.Image) -> Picture:
    image.load()
    orientation = _orientation(image)  # after load: TIFF pictures are turned while loading, as the format asks
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        gray = to_eight_bit(np.asarray(image))
        return Picture(_repeat(gray), orientation=orientation)
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3]), orientation)
    return Picture(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), orientation=orientation)


def _from_tiff(source: Source, page: TiffPage) -> Picture:
    samples = page.read()  # (height, width, samples)
    count = samples.shape[2]
    with reading(source, "TIFF"):
        eight = to_eight_bit(samples[..., :4])
    if page.white_is_zero:
        eight = np.asarray(255 - eight, dtype=np.uint8)
    rgb = eight[..., :3] if count >= 3 else eight[..., :1].repeat(3, axis=2)
    alpha = np.ascontiguousarray(eight[..., count - 1]) if count in (2, 4) else None
    return Picture(np.ascontiguousarray(rgb), alpha, page.orientation)


def _repeat(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[..., None], 3, axis=2)  # (height, width) -> (height, width, 3)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, EOFError):  # a damaged EXIF block does not spoil the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
