"""Long media made here: what they show or sound changes every ten seconds, so that each moment can be told from the others."""

from __future__ import annotations

import io
import math
import struct
import wave
from collections.abc import Sequence

import av
import numpy as np

COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 40), (40, 220, 220), (220, 40, 220))
TONES_HZ = (220.0, 880.0, 1760.0, 3520.0, 440.0, 7000.0)


def wav(tones_hz: Sequence[float] = TONES_HZ, seconds_each: float = 10.0, rate: int = 16_000) -> bytes:
    """One tone after the other."""
    stream = io.BytesIO()
    time_s = np.arange(int(seconds_each * rate)) / rate
    samples = np.concatenate([0.4 * np.sin(2 * math.pi * hertz * time_s) for hertz in tones_hz])
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32_000).astype("<i2").tobytes())
    return stream.getvalue()


def mp4(
    colors: Sequence[tuple[int, int, int]] = COLORS,
    seconds_each: float = 10.0,
    *,
    codec: str = "libx264",
    container: str = "mp4",
    rate: int = 5,
    key_every: int = 25,
    sound_s: float | None = None,
) -> bytes:
    """One plain colour after the other, with a tone beside them when ``sound_s`` is given."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        track = out.add_stream(codec, rate=rate)
        track.width = track.height = 64
        track.pix_fmt = "yuv420p"
        track.gop_size = key_every
        track.codec_context.thread_count = 1
        sound = None if sound_s is None else out.add_stream("aac", rate=16_000, layout="mono")
        for color in colors:
            for _ in range(round(seconds_each * rate)):
                picture = np.full((64, 64, 3), color, dtype=np.uint8)
                out.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(track.encode())
        if sound is not None and sound_s is not None:
            add_quiet(out, sound, sound_s)
    return stream.getvalue()


def damaged(clip: bytes, at: float) -> bytes:
    """Zeros over a twentieth of the samples of an MP4, from the share ``at`` of them on; its index stays whole."""
    (size,) = struct.unpack(">I", clip[clip.index(b"mdat") - 4 : clip.index(b"mdat")])
    first = clip.index(b"mdat") + 4 + int(at * size)
    length = size // 20
    return clip[:first] + bytes(length) + clip[first + length :]


def add_quiet(out: av.container.OutputContainer, track: av.AudioStream, seconds: float) -> None:
    """Fill a mono track of 16 kHz with a quiet, even sound."""
    whole = av.AudioFrame.from_ndarray(np.full((1, int(seconds * 16_000)), 0.1, np.float32), format="fltp", layout="mono")
    whole.sample_rate, whole.pts = 16_000, 0
    fit = av.AudioResampler(format="fltp", layout="mono", rate=16_000, frame_size=track.codec_context.frame_size)
    for frame in [*fit.resample(whole), *fit.resample(None)]:
        out.mux(track.encode(frame))
    out.mux(track.encode(None))
