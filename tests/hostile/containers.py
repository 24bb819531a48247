"""Containers cut off at each quarter, without their index, with boxes inside boxes without end."""

from __future__ import annotations

import io
import struct

import av

from tests.hostile.pictures import File
from tests.hostile.videos import plain
from tests.media.clips import sound, tone, video


def part(clip: bytes, quarters: int) -> bytes:
    return clip[: len(clip) * quarters // 4]


def live_matroska() -> bytes:
    """Matroska as a live stream writes it: no cues, no lengths."""
    file = io.BytesIO()
    with av.open(io.BytesIO(plain())) as source, av.open(file, "w", format="matroska", container_options={"live": "1"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return file.getvalue()


def nested_boxes() -> bytes:
    """50,000 boxes, each inside the one before."""
    depth = 50_000
    body = b"".join(struct.pack(">I", 8 * (depth - level)) + b"moov" for level in range(depth))
    return struct.pack(">I", 16) + b"ftypisom" + bytes(4) + body


def zero_boxes() -> bytes:
    return struct.pack(">I", 16) + b"ftypisom" + bytes(4) + (struct.pack(">I", 8) + b"free") * 200_000


def giant_box() -> bytes:
    return struct.pack(">I", 16) + b"ftypisom" + bytes(4) + struct.pack(">I", 1) + b"moov" + struct.pack(">Q", 1 << 62) + bytes(100)


def external_reference() -> bytes:
    """A QuickTime file whose samples are said to lie in another file of this machine (`dref` of type `alis`/`url `)."""
    clip = bytearray(plain())
    at = clip.index(b"dref") + 12
    size = struct.unpack(">I", clip[at : at + 4])[0]
    target = b"file:///etc/passwd\0"[: max(size - 12, 0)].ljust(max(size - 12, 0), b"\0")
    clip[at + 4 : at + 12] = b"url \0\0\0\0"
    clip[at + 12 : at + 12 + len(target)] = target
    return bytes(clip)


def matroska_attachments() -> bytes:
    """An EBML element that claims 2^55 bytes in the middle of the head."""
    clip = bytearray(video(container="matroska", frames=4))
    at = clip.index(b"\x16\x54\xae\x6b")  # Tracks
    return bytes(clip[:at]) + b"\x19\x41\xa4\x69\x01" + b"\x7f" * 7 + bytes(clip[at:])


CUT = "unreadable_media no_video_stream"
FILES: list[File] = [
    *[("video", f"quarter-{n}.mp4", CUT, lambda n=n: part(plain(), n)) for n in (1, 2, 3)],  # type: ignore[misc]
    *[("video", f"quarter-{n}.mkv", CUT, lambda n=n: part(video(container="matroska"), n)) for n in (1, 2, 3)],  # type: ignore[misc]
    ("video", "live.mkv", "ok", live_matroska),
    ("video", "nested-boxes.mp4", "unreadable_media", nested_boxes),
    ("video", "many-boxes.mp4", "unreadable_media", zero_boxes),
    ("video", "giant-box.mp4", "unreadable_media", giant_box),
    ("video", "external.mov", "ok unreadable_media", external_reference),
    ("video", "giant-element.mkv", "unreadable_media no_video_stream", matroska_attachments),
    ("audio", "quarter.m4a", "unreadable_media", lambda: part(sound("aac", "mp4", tone(48_000, 1.0), 48_000), 1)),
]
