"""Small real files of every modality, made here, and junk of every sort."""

from __future__ import annotations

import io
import math
import struct
import wave
import zlib
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIDE = 48  # px


def _saved(image: Image.Image, format_name: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format_name)
    return stream.getvalue()


def png(color: tuple[int, int, int] = (200, 40, 40)) -> bytes:
    picture = np.full((SIDE, SIDE, 3), color, dtype=np.uint8)
    picture[: SIDE // 2, : SIDE // 3] = (10, 90, 220)
    return _saved(Image.fromarray(picture), "PNG")


def large_png() -> bytes:
    """49 megapixels, just within the limit; a few kilobytes that take a while to decode."""
    stream = io.BytesIO()
    Image.new("L", (7000, 7000)).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def jpeg() -> bytes:
    return _saved(Image.fromarray(np.linspace(0, 255, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3).astype(np.uint8)), "JPEG")


def wav(hertz: float = 440.0, seconds: float = 0.5, rate: int = 16_000) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = (int(12_000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(int(seconds * rate)))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return stream.getvalue()


def mp4(frames: int = 12) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track = container.add_stream("mpeg4", rate=8)
        track.width = track.height = 64
        track.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((64, 64, 3), (index * 20 % 256, 80, 160), dtype=np.uint8)
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(track.encode())
    return stream.getvalue()


def depth_png() -> bytes:
    """16 bits a pixel, millimetres."""
    return _saved(Image.fromarray(np.linspace(500, 6000, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)), "PNG")


def thermal_png() -> bytes:
    return _saved(Image.fromarray(np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)), "PNG")


def huge_png_header() -> bytes:
    """A PNG that says it is 100,000 x 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0" * 64


GOOD = {"image": png(), "video": mp4(), "audio": wav(), "depth": depth_png(), "thermal": thermal_png()}
NAMES = {"image": "a.png", "video": "a.mp4", "audio": "a.wav", "depth": "a-depth.png", "thermal": "a-thermal.png"}

JUNK = {
    "empty": b"",
    "noise": bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)),
    "huge header": huge_png_header(),
    "playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    "concat script": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "truncated png": png()[:60],
    "truncated mp4": mp4()[:200],
    "truncated wav": wav()[:30],
    "html": b"<!doctype html><html></html>",
}


def example(name: str) -> bytes:
    return (Path(__file__).parents[2] / "examples" / name).read_bytes()
