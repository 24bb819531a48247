"""Pictures: bombs, floods of metadata, endless animations, headers that lie, and sizes that nobody has at home."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from tests.media.clips import encoded, gradient, png_header

File = tuple[str, str, str, Callable[[], bytes]]  # modality, name, codes, maker


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, pixels: bytes, *, before: bytes = b"", bits: int = 8, colour: int = 2) -> bytes:
    """``pixels`` already deflated; ``before``: chunks between the header and them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """``count`` zero bytes, deflated, a thousandth of the size."""
    deflater, block = zlib.compressobj(9), bytes(1 << 20)
    out = [deflater.compress(block) for _ in range(count >> 20)]
    return b"".join([*out, deflater.compress(bytes(count & (1 << 20) - 1)), deflater.flush()])


def within_the_cap() -> bytes:
    return png(7000, 7000, zeros((7000 * 3 + 1) * 7000))


def overlong_stream() -> bytes:
    """A small picture whose pixel stream inflates to half a gigabyte."""
    return png(64, 64, zeros(512 << 20))


def text_flood() -> bytes:
    chunks = b"".join(png_chunk(b"tEXt", b"k%d\0value" % number) for number in range(10_000))
    return png(8, 8, zlib.compress(bytes((8 * 3 + 1) * 8)), before=chunks)


def text_bomb() -> bytes:
    """Compressed texts of 64 MiB each."""
    chunk = png_chunk(b"iTXt", b"k\0\1\0\0\0" + zeros(64 << 20)) * 16
    return png(8, 8, zlib.compress(bytes((8 * 3 + 1) * 8)), before=chunk)


def profile_bomb() -> bytes:
    return png(8, 8, zlib.compress(bytes((8 * 3 + 1) * 8)), before=png_chunk(b"iCCP", b"p\0\0" + zeros(256 << 20)))


def animation(file_format: str, frames: int) -> bytes:
    pictures = [Image.fromarray(np.full((8, 8, 3), number % 256, np.uint8)) for number in range(frames)]
    return encoded(pictures[0], file_format, save_all=True, append_images=pictures[1:], duration=10)


def gif_frames(count: int) -> bytes:
    """A GIF of one real frame repeated ``count`` times."""
    first = encoded(Image.fromarray(gradient(8, 8)[..., 0]), "GIF")
    start = 13 + 3 * (2 << (first[10] & 7))  # after the header and its table of colours
    return first[:-1] + first[start:-1] * (count - 1) + b";"


def gif_giant() -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x00\x00\x00,"
        + struct.pack("<HHHH", 0, 0, 65535, 65535)
        + b"\x00\x02\x02\x4c\x01\x00;"
    )


def exif_flood() -> bytes:
    """A JPEG whose EXIF block states 10,000 tags."""
    tags = b"".join(struct.pack("<HHII", 0x8000 + number % 1000, 3, 1, number) for number in range(5400))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 10_000) + tags
    return _with_segment(exif)


def exif_loop() -> bytes:
    """EXIF whose directory points to itself as its own sub-directory."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return _with_segment(b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 8))


def _with_segment(body: bytes) -> bytes:
    jpeg = encoded(Image.fromarray(gradient()), "JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body[:65533]) + 2) + body[:65533] + jpeg[2:]


def jpeg_giant() -> bytes:
    jpeg = bytearray(encoded(Image.fromarray(gradient()), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(jpeg)


def jpeg_scans() -> bytes:
    """A progressive JPEG of 12 megapixels whose last scan is repeated 500 times: each one is a pass over all of it."""
    jpeg = encoded(Image.new("L", (4000, 3000), 90), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * 500 + b"\xff\xd9"


def bmp_giant() -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 54 + 64, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 30000, -30000, 1, 24, 0, 0, 1, 1, 0, 0)
        + bytes(64)
    )


def webp_giant() -> bytes:
    side = 16383
    body = b"VP8L" + struct.pack("<I", 8) + b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + bytes(3)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff(tags: list[tuple[int, int, int, int]], body: bytes = b"", next_ifd: int = 0) -> bytes:
    """A little-endian TIFF: ``tags`` (number, type, count, value), then ``body`` right after the directory."""
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + struct.pack("<I", next_ifd)
    return b"II*\0\x08\0\0\0" + directory + body


def gray_tiff(
    width: int, height: int, bits: int, body: bytes, *, compression: int = 1, claimed: int | None = None, rows: int | None = None
) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(278, 4, 1, rows or height), (279, 4, 1, len(body) if claimed is None else claimed)]
    at = 8 + 2 + 12 * (len(tags) + 1) + 4
    return tiff([*tags, (273, 4, 1, at)], body)


def tiff_bomb_in_cap() -> bytes:
    """Half a gigabyte behind the one strip of a small picture."""
    return gray_tiff(64, 64, 16, zeros(512 << 20), compression=8)


def tiff_many_strips() -> bytes:
    """A million strips claimed, one there."""
    return gray_tiff(16, 16000, 16, bytes(64), rows=1)


def tiff_loop() -> bytes:
    return tiff(
        [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (279, 4, 1, 128)],
        bytes(256),
        8,
    )


def tiff_long_chain() -> bytes:
    """50,000 empty directories, each pointing to the next, the picture in none of them."""
    out, at = [b"II*\0\x08\0\0\0"], 8
    for _ in range(50_000):
        at += 18
        out.append(struct.pack("<HHHIII", 1, 256, 4, 1, 8, at))
    return b"".join(out)


def tiff_lying_strips() -> bytes:
    return gray_tiff(4000, 4000, 16, bytes(100), claimed=0xFFFFFFF0)


def tiff_tag_bomb() -> bytes:
    """A description that claims four gigabytes."""
    body = bytes(64 * 64 * 2)
    tags = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (270, 2, 0xFFFFFFF0, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 64), (279, 4, 1, len(body))]
    return tiff([*tags, (273, 4, 1, 8 + 2 + 12 * 10 + 4)], body)


def float_tiff(values: Any) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, values)
    return file.getvalue()


def pillow_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("large", "x" * (2 << 20), zip=True)
    return encoded(Image.fromarray(gradient()), "PNG", pnginfo=info)


UNREADABLE, PIXELS, EITHER = "unreadable_media", "too_many_pixels", "unreadable_media too_many_pixels decoder_killed"

FILES: list[File] = [
    ("image", "header-100k.png", PIXELS, lambda: png_header(100_000, 100_000)),
    ("image", "header-16k.png", PIXELS, lambda: png_header(16_000, 16_000)),
    ("image", "bomb-in-cap.png", "ok", within_the_cap),
    ("image", "overlong-stream.png", "ok unreadable_media", overlong_stream),
    ("image", "text-flood.png", "ok", text_flood),
    ("image", "text-bomb.png", "ok unreadable_media", text_bomb),
    ("image", "profile-bomb.png", "ok unreadable_media", profile_bomb),
    ("image", "large-text.png", "ok unreadable_media", pillow_text),
    ("image", "frames-100k.gif", "ok", lambda: gif_frames(100_000)),
    ("image", "giant.gif", PIXELS, gif_giant),
    ("image", "animated.webp", "ok", lambda: animation("WEBP", 200)),
    ("image", "giant.webp", EITHER, webp_giant),
    ("image", "exif-flood.jpg", "ok", exif_flood),
    ("image", "exif-loop.jpg", "ok", exif_loop),
    ("image", "giant.jpg", PIXELS, jpeg_giant),
    ("image", "scans.jpg", UNREADABLE, jpeg_scans),
    ("image", "giant.bmp", PIXELS, bmp_giant),
    ("image", "bomb.tiff", "ok unreadable_media decoder_killed", tiff_bomb_in_cap),
    ("image", "loop.tiff", "ok unreadable_media", tiff_loop),
    ("image", "long-chain.tiff", "empty_media unreadable_media", tiff_long_chain),
    ("image", "lying-strips.tiff", UNREADABLE, tiff_lying_strips),
    ("image", "many-strips.tiff", UNREADABLE, tiff_many_strips),
    ("image", "tag-bomb.tiff", "ok unreadable_media", tiff_tag_bomb),
    ("image", "nan.tiff", "ok", lambda: float_tiff(np.full((32, 32, 3), np.nan, np.float32))),
    ("image", "infinite.tiff", "ok", lambda: float_tiff(np.full((32, 32, 3), np.inf, np.float32))),
    ("image", "one-pixel.png", "ok", lambda: encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")),
    ("image", "thread.png", "ok", lambda: encoded(Image.new("RGB", (1, 16_000), (9, 8, 7)), "PNG")),
    ("image", "ribbon.png", "ok", lambda: encoded(Image.new("RGB", (16_000, 1), (9, 8, 7)), "PNG")),
    ("image", "cut.jpg", UNREADABLE, lambda: encoded(Image.fromarray(gradient(400, 300)), "JPEG")[:4000]),
]
