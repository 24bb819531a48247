"""Media made on the spot: small, of every codec, with exactly the oddity that a test is about."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def video(
    codec: str = "libx264",
    container: str = "mp4",
    *,
    frames: int = 24,
    size: tuple[int, int] = (96, 64),
    key_every: int | None = None,
    times_ms: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    sound_rate: int | None = None,
) -> bytes:
    """A clip whose every frame differs: a bar grows from the left and red rises. ``size`` is (width, height)."""
    file = io.BytesIO()
    width, height = size
    options = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"}}.get(codec, {})
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        if key_every:
            stream.gop_size = key_every
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound: Any = out.add_stream("aac" if container != "webm" else "libopus", rate=sound_rate, layout="mono") if sound_rate else None
        for number in range(frames):
            picture = np.zeros((height, width, 3), np.uint8)
            picture[..., 0] = number * 4 % 256
            picture[:, : 1 + number * width // frames, 1] = 200
            picture[height // 2 :, :, 2] = 100
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound is not None and sound_rate is not None:
            _encode_sound(out, sound, tone(sound_rate, frames / 30), sound_rate)
    return file.getvalue()


def every_frame(clip: bytes) -> list[NDArray[np.uint8]]:
    """What plain decoding from the start gives: the truth that seeking must not change."""
    with av.open(io.BytesIO(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def rotated(clip: bytes, quarter_turns: int) -> bytes:
    """An MP4 whose display matrix turns the picture counter-clockwise, as a phone held upright writes it."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns]
    at = clip.index(b"tkhd") + 4 + 40  # the matrix comes 40 bytes after the (version 0) box's name
    one = 1 << 16
    matrix = struct.pack(">9i", cos * one, -sin * one, 0, sin * one, cos * one, 0, 0, 0, 1 << 30)
    return clip[:at] + matrix + clip[at + 36 :]


def tone(rate: int, seconds: float, channels: int = 1) -> NDArray[np.float32]:
    """A rising tone, each channel half as loud as the one before, ``(channels, samples)``."""
    time_s = np.arange(int(rate * seconds)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (300 + 200 * time_s) * time_s)
    return np.stack([wave * 0.5**channel for channel in range(channels)]).astype(np.float32)


def sound(codec: str, container: str, samples: NDArray[np.float32], rate: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=_LAYOUTS[len(samples)])
        _encode_sound(out, stream, samples, rate)
    return file.getvalue()


def _encode_sound(out: Any, stream: Any, samples: NDArray[np.float32], rate: int) -> None:
    whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=_LAYOUTS[len(samples)])
    whole.sample_rate, whole.pts = rate, 0
    fit = av.AudioResampler(format=stream.format, layout=stream.layout, rate=rate, frame_size=stream.codec_context.frame_size or None)
    for frame in [*fit.resample(whole), *fit.resample(None)]:
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def wav(body: bytes, *, claimed: int | None = None, rate: int = 16_000, channels: int = 1) -> bytes:
    """16-bit WAV; ``claimed`` is what the header says that the body has."""
    length = len(body) if claimed is None else claimed
    fmt = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return b"RIFF" + struct.pack("<I", (36 + length) & 0xFFFFFFFF) + b"WAVEfmt " + fmt + b"data" + struct.pack("<I", length) + body


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header claims any size, with next to no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def npy(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(shape: str, descr: str = "<f4") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def gradient(width: int = 40, height: int = 30) -> NDArray[np.uint8]:
    """RGB with a different slope in each channel, ``(height, width, 3)``."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)], axis=-1).astype(np.uint8)
