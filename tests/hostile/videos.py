"""Videos: too large, too long, without pictures, with sizes that change on the way, with time that runs backwards or not at all."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np

from tests.hostile.pictures import File
from tests.media.clips import sound, tone, video


@lru_cache
def plain() -> bytes:
    return video(frames=12)


@lru_cache
def eight_k() -> bytes:
    """Two frames of 7680 x 4320."""
    return video("mpeg4", "mp4", frames=2, size=(7680, 4320))


def beyond_the_cap() -> bytes:
    """A VP8 stream header that claims 16383 x 16383."""
    clip = bytearray(video("libvpx", "webm", frames=3))
    at = clip.index(b"\x9d\x01\x2a") + 3
    clip[at : at + 4] = struct.pack("<HH", 16383, 16383)
    return bytes(clip)


def sample_table(name: bytes, count: int) -> bytes:
    """An MP4 whose table ``name`` claims ``count`` entries."""
    clip = bytearray(plain())
    at = clip.index(name) + 4
    offset = at + (8 if name == b"stsz" else 4)
    clip[offset : offset + 4] = struct.pack(">I", count)
    return bytes(clip)


def fixed_size_samples() -> bytes:
    """`stsz` with one size for all: four billion frames in no bytes at all."""
    clip = bytearray(plain())
    at = clip.index(b"stsz") + 4
    clip[at + 4 : at + 12] = struct.pack(">II", 1, 0x7FFFFFFF)
    return bytes(clip)


def time_scale(value: int) -> bytes:
    clip = bytearray(plain())
    at = clip.index(b"mdhd") + 4 + 12
    clip[at : at + 4] = struct.pack(">I", value)
    return bytes(clip)


def media_length(value: int) -> bytes:
    clip = bytearray(plain())
    at = clip.index(b"mdhd") + 4 + 16
    clip[at : at + 4] = struct.pack(">I", value)
    return bytes(clip)


def far_apart() -> bytes:
    """Three frames, a month between each."""
    return video(frames=3, container="matroska", times_ms=[0, 2_600_000_000, 5_200_000_000])


def backwards() -> bytes:
    """Composition offsets that throw frames hundreds of hours into the past."""
    clip = bytearray(video(frames=12, key_every=12))
    at = clip.find(b"ctts")
    if at < 0:
        at = clip.index(b"stts")
    clip[at + 12 : at + 16] = struct.pack(">I", 0xFFFF0000)
    return bytes(clip)


@lru_cache
def changing_size() -> bytes:
    """Two clips of different size as one Matroska stream of VP8, which states its size in every key frame."""
    small, large = video("libvpx", "webm", frames=6, size=(64, 48)), video("libvpx", "webm", frames=6, size=(320, 240))
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as out:
        stream: Any = None
        shift = 0
        for clip in (small, large):
            with av.open(io.BytesIO(clip)) as source:
                if stream is None:
                    stream = out.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        packet.pts, packet.dts = packet.pts + shift, packet.pts + shift
                        packet.time_base = Fraction(1, 1000)
                        out.mux(packet)
            shift += 1000
    return file.getvalue()


def growing_beyond_the_cap() -> bytes:
    """As above, and the later key frames claim 16383 x 16383."""
    clip = bytearray(changing_size())
    at = clip.rindex(b"\x9d\x01\x2a") + 3
    clip[at : at + 4] = struct.pack("<HH", 16383, 16383)
    return bytes(clip)


def sound_only(codec: str = "aac", container: str = "mp4") -> bytes:
    return sound(codec, container, tone(48_000, 0.5), 48_000)


def many_frames() -> bytes:
    """More frames than are taken, each of a few bytes."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as out:
        stream: Any = out.add_stream("mpeg4", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        packets = [*stream.encode(frame), *stream.encode()]
        body = bytes(packets[0])
        for number in range(201_000):
            packet = av.Packet(body)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, 1000), True
            out.mux(packet)
    return file.getvalue()


BAD = "unreadable_media"
MOSTLY_BAD = "ok unreadable_media too_long decoder_killed empty_media"
FILES: list[File] = [
    ("video", "eight-k.mp4", "ok", eight_k),
    ("video", "beyond-the-cap.webm", "unreadable_media too_many_pixels", beyond_the_cap),
    ("video", "growing.webm", "ok", changing_size),
    ("video", "growing-beyond-the-cap.webm", "unreadable_media too_many_pixels", growing_beyond_the_cap),
    ("video", "many-frames.avi", "too_long", many_frames),
    ("video", "huge-stsz.mp4", MOSTLY_BAD, lambda: sample_table(b"stsz", 0x7FFFFFFF)),
    ("video", "fixed-stsz.mp4", MOSTLY_BAD, fixed_size_samples),
    ("video", "huge-stts.mp4", MOSTLY_BAD, lambda: sample_table(b"stts", 0x7FFFFFFF)),
    ("video", "huge-stco.mp4", MOSTLY_BAD, lambda: sample_table(b"stco", 0x7FFFFFFF)),
    ("video", "time-scale-0.mp4", MOSTLY_BAD, lambda: time_scale(0)),
    ("video", "time-scale-1.mp4", MOSTLY_BAD, lambda: time_scale(1)),
    ("video", "time-scale-max.mp4", MOSTLY_BAD, lambda: time_scale(0xFFFFFFFF)),
    ("video", "length-max.mp4", MOSTLY_BAD, lambda: media_length(0xFFFFFFFF)),
    ("video", "months.mkv", "too_long", far_apart),
    ("video", "backwards.mp4", MOSTLY_BAD, backwards),
    ("video", "sound-only.mp4", "no_video_stream", sound_only),
    ("video", "sound-only.mkv", "no_video_stream", lambda: sound_only("libopus", "matroska")),
    ("audio", "no-sound.mp4", "no_audio_stream", plain),
    ("video", "one-frame.mp4", "ok", lambda: video(frames=1)),
    ("video", "two-pixels.mp4", "ok unreadable_media", lambda: video(frames=2, size=(2, 2))),
]
