"""Depth and thermal files: shapes that lie, numbers that are none, windows as large as the number type."""

from __future__ import annotations

import io
import os
import struct
import tempfile

import numpy as np
import OpenEXR
from PIL import Image

from tests.hostile.pictures import File, float_tiff, gray_tiff, tiff_loop, tiff_lying_strips, zeros
from tests.media.clips import encoded, npy, npy_header, png_header


def exr(window: tuple[int, int, int, int] | None = None, value: float = 1.0) -> bytes:
    """A small EXR of one channel Z; ``window`` overwrites what its data window claims."""
    handle, path = tempfile.mkstemp(suffix=".exr")
    os.close(handle)
    try:
        planes = {"Z": np.full((8, 8), value, np.float32)}
        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, planes).write(path)
        with open(path, "rb") as file:
            data = file.read()
    finally:
        os.unlink(path)
    if window is None:
        return data
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    return data[:at] + struct.pack("<4i", *window) + data[at + 16 :]


def structured() -> bytes:
    return npy(np.zeros((8, 8), dtype=[("a", "<f4"), ("b", "<i2")]))


def objects() -> bytes:
    """Pickled code, which must never be looked at."""

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (os._exit, (7,))

    file = io.BytesIO()
    np.save(file, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    return file.getvalue()


def long_header() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (8, 8), }" + b" " * 200_000 + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + bytes(256)


def deep_header() -> bytes:
    header = b"[" * 4000 + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def with_holes() -> bytes:
    values = np.linspace(0.5, 9.0, 64 * 64, dtype=np.float32).reshape(64, 64)
    values[::3], values[1::7], values[2::9] = np.nan, np.inf, -np.inf
    return npy(values)


BAD = "unreadable_media"
FILES: list[File] = [
    ("depth", "objects.npy", BAD, objects),
    ("depth", "structured.npy", BAD, structured),
    ("depth", "negative.npy", "unreadable_media empty_media", lambda: npy_header("(-8, 8)") + bytes(256)),
    ("depth", "huge.npy", "too_many_pixels", lambda: npy_header("(1000000, 1000000)")),
    ("depth", "overflow.npy", "too_many_pixels unreadable_media", lambda: npy_header("(4294967296, 4294967296)")),
    ("depth", "not-there.npy", BAD, lambda: npy_header("(4000, 4000)")),
    ("depth", "flat.npy", BAD, lambda: npy_header("(64,)") + bytes(256)),
    ("depth", "many-axes.npy", BAD, lambda: npy_header("(" + "1, " * 30 + ")") + bytes(256)),
    ("depth", "zero-sides.npy", "empty_media", lambda: npy_header("(0, 8)")),
    ("depth", "long-header.npy", BAD, long_header),
    ("depth", "deep-header.npy", BAD, deep_header),
    ("depth", "bare-magic.npy", BAD, lambda: b"\x93NUMPY"),
    ("depth", "newest-version.npy", BAD, lambda: b"\x93NUMPY\x09\x00" + bytes(200)),
    ("depth", "fortran.npy", "ok", lambda: npy(np.asfortranarray(np.ones((40, 30), np.float32)))),
    ("depth", "complex.npy", BAD, lambda: npy(np.ones((8, 8), np.complex64))),
    ("depth", "doubles.npy", "ok empty_media", lambda: npy(np.full((8, 8), 1e300))),
    ("depth", "largest-floats.npy", "ok empty_media", lambda: npy(np.full((8, 8), 3e38, np.float32))),
    ("depth", "nan.npy", "ok empty_media", lambda: npy(np.full((32, 32), np.nan, np.float32))),
    ("depth", "infinite.npy", "ok empty_media", lambda: npy(np.full((32, 32), -np.inf, np.float16))),
    ("depth", "holes.npy", "ok", with_holes),
    ("depth", "all-zero.png", "ok empty_media", lambda: encoded(Image.fromarray(np.zeros((32, 32), np.uint16)), "PNG")),
    ("depth", "eight-bit.png", "ambiguous_depth", lambda: encoded(Image.new("L", (32, 32), 100), "PNG")),
    ("depth", "coloured.png", "ambiguous_depth", lambda: encoded(Image.new("RGB", (32, 32)), "PNG")),
    ("depth", "header-100k.png", "too_many_pixels", lambda: png_header(100_000, 100_000, 16, 0)),
    ("depth", "nan.tiff", "ok empty_media", lambda: float_tiff(np.full((32, 32), np.nan, np.float32))),
    ("depth", "lying-strips.tiff", BAD, tiff_lying_strips),
    ("depth", "loop.tiff", "ok unreadable_media", tiff_loop),
    ("depth", "bomb.tiff", "ok unreadable_media decoder_killed", lambda: gray_tiff(64, 64, 16, zeros(512 << 20), compression=8)),
    ("depth", "giant.tiff", "too_many_pixels", lambda: gray_tiff(200_000, 200_000, 16, bytes(8))),
    ("depth", "absurd-window.exr", "too_many_pixels unreadable_media", lambda: exr((-2147483648, -2147483648, 2147483647, 2147483647))),
    ("depth", "backward-window.exr", "empty_media unreadable_media", lambda: exr((100, 100, 0, 0))),
    ("depth", "wide-window.exr", BAD, lambda: exr((0, 0, 4000, 4000))),
    ("depth", "far-window.exr", "ok unreadable_media", lambda: exr((1_000_000, 1_000_000, 1_000_007, 1_000_007))),
    ("depth", "nan.exr", "ok empty_media", lambda: exr(value=float("nan"))),
    ("depth", "cut.exr", BAD, lambda: exr()[:-40]),
    ("thermal", "no-range.tiff", "invalid_parameter empty_media", lambda: float_tiff(np.full((32, 32), np.nan, np.float32))),
    ("thermal", "no-range.npy", "invalid_parameter empty_media", lambda: npy(np.full((32, 32), np.inf, np.float32))),
    ("thermal", "objects.npy", BAD, objects),
    ("thermal", "header-100k.png", "too_many_pixels", lambda: png_header(100_000, 100_000, 16, 0)),
    ("thermal", "five-channels.npy", BAD, lambda: npy(np.zeros((8, 8, 5), np.uint8))),
    ("thermal", "one-pixel.png", "ok", lambda: encoded(Image.new("L", (1, 1)), "PNG")),
]
