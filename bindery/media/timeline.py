"""The timeline of a video stream: which frames there are, in display order, read from its packets without decoding."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import av.container
import av.error
import av.video

from bindery.errors import EmptyMedia, InvalidParameter, TooLong
from bindery.limits import Limits
from bindery.media.source import Source

# VP8 keeps hidden reference frames in packets of their own, so its packets are more than its frames.
_PACKETS_LIE = frozenset({"vp8"})
_REORDERED = 32  # frames; no codec here shows a frame later than this many after it is decoded
_STEPS_BACK_S = (0.5, 8.0, 64.0, 1e9)


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """Where decoding may begin: number in display order, and the time stamp to seek to."""

    number: int
    seek_to: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Frames in display order, of a whole file or of a stretch of it. ``stamps`` are in units of ``tick_s`` seconds."""

    stamps: tuple[int, ...]
    tick_s: float
    keys: tuple[KeyFrame, ...]
    is_reliable: bool  # each stamp is one frame's own, so a frame can be recognised by it
    origin: int | None = None  # the file's first stamp, when that is not the first one here

    def time_s(self, number: int) -> float:
        return (self.stamps[number] - (self.stamps[0] if self.origin is None else self.origin)) * self.tick_s

    @property
    def length_s(self) -> float:
        """From the file's first frame to the end of the last one here (which is guessed from the mean frame time)."""
        count = len(self.stamps)
        frame_s = (self.time_s(count - 1) - self.time_s(0)) / (count - 1) if count > 1 else 0.0
        return self.time_s(count - 1) + frame_s

    def part(self, name: str, start: float | None, end: float | None) -> range:
        """Numbers of the frames shown from ``start`` to ``end`` seconds. Raises `InvalidParameter` when start is beyond the last."""
        count = len(self.stamps)
        if start is not None and start > 0 and start >= max(self.length_s, 1e-9):
            raise InvalidParameter(f"start is {start:g} s, but {name} lasts {self.length_s:.3f} s", pointer="/options/start")
        times = [self.time_s(number) for number in range(count)] if start is not None or end is not None else []
        first = 0 if start is None else bisect_left(times, start - self.tick_s / 2)
        stop = count if end is None else bisect_left(times, end - self.tick_s / 2)
        if stop > first:
            return range(first, stop)
        on_screen = max(bisect_right(times, start or 0.0) - 1, 0)  # the part lies between two frames
        return range(on_screen, on_screen + 1)

    def key_before(self, number: int) -> KeyFrame | None:
        place = bisect_right([key.number for key in self.keys], number) - 1
        return self.keys[place] if place >= 0 else None


def read_timeline(source: Source, container: av.container.InputContainer, stream: av.video.VideoStream, limits: Limits) -> Timeline:
    """The timeline by the packets' time stamps. Raises `EmptyMedia`, `TooLong`; a cut-off file raises through the container's guard."""
    stamps: list[int | None] = []
    keys: list[tuple[int, int]] = []
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise av.error.InvalidDataError(0, "the file is cut off or damaged")
        if packet.size == 0 or packet.is_discard:  # the flush at the end, and frames cut away by an edit list
            continue
        stamps.append(packet.pts)
        check_count(source, len(stamps), limits)
        if packet.is_keyframe and packet.pts is not None:
            keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
    if not stamps:
        raise EmptyMedia(f"{source.name} holds no video frames")
    known = sorted(stamp for stamp in stamps if stamp is not None)
    is_reliable = len(set(known)) == len(stamps) and stream.codec_context.name not in _PACKETS_LIE and stream.time_base is not None
    return Timeline(tuple(known), tick_s(stream), _numbered(keys, known) if is_reliable else (), is_reliable)


def read_stretch(
    source: Source,
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    limits: Limits,
    start: float | None,
    end: float | None,
) -> Timeline | None:
    """The timeline from the key frame before ``start`` to ``end`` seconds, so that a part of a long file costs what the part does.

    None when the packets do not tell it (then the whole file has to be read). Raises like `read_timeline`.
    """
    origin = first_stamp(container, stream)
    if origin is None or stream.codec_context.name in _PACKETS_LIE:
        return None
    first = origin + int((start or 0.0) / tick_s(stream))
    last = None if end is None else origin + int(end / tick_s(stream)) + 1
    for back_s in _STEPS_BACK_S:  # key frames are found by decoding time, which runs ahead of the time they are shown at
        seek_to = max(first - int(back_s / tick_s(stream)), origin)
        container.seek(seek_to, stream=stream)
        packets = _packets_to(source, container, stream, limits, last)
        if packets is None or not packets.stamps:
            return None
        if packets.stamps[0] <= first or seek_to == origin:
            known = sorted(packets.stamps)
            is_reliable = len(set(known)) == len(known) and len(packets.keys) > 0
            return Timeline(tuple(known), tick_s(stream), _numbered(packets.keys, known), True, origin) if is_reliable else None
    return None


def count_timeline(source: Source, container: av.container.InputContainer, stream: av.video.VideoStream, limits: Limits) -> Timeline:
    """The timeline by decoding every frame, for streams whose packets do not tell. Raises like `read_timeline`."""
    stamps: list[int] = []
    rate = stream.average_rate or stream.guessed_rate or 25
    step = max(round(1 / (float(rate) * tick_s(stream))), 1)
    for frame in container.decode(stream):
        follows = stamps[-1] + step if stamps else 0
        is_forward = frame.pts is not None and (not stamps or frame.pts > stamps[-1])
        stamps.append(frame.pts if is_forward and frame.pts is not None else follows)
        check_count(source, len(stamps), limits)
    if not stamps:
        raise EmptyMedia(f"{source.name} holds no video frames")
    return Timeline(tuple(stamps), tick_s(stream), (), is_reliable=False)


@dataclass(frozen=True, slots=True)
class _Packets:
    stamps: list[int]  # in decoding order; the first one is a key frame's
    keys: list[tuple[int, int]]


def _packets_to(
    source: Source, container: av.container.InputContainer, stream: av.video.VideoStream, limits: Limits, last: int | None
) -> _Packets | None:
    """Packets from where the container stands up to the stamp ``last``; None when one has no time."""
    packets = _Packets([], [])
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise av.error.InvalidDataError(0, "the file is cut off or damaged")
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.pts is None or packet.dts is None:
            return None
        if last is not None and packet.dts > last:  # all that follow are shown later still
            break
        packets.stamps.append(packet.pts)
        check_count(source, len(packets.stamps), limits)
        if packet.is_keyframe:
            packets.keys.append((packet.pts, packet.dts))
    return packets


def first_stamp(container: av.container.InputContainer, stream: av.video.VideoStream) -> int | None:
    """The time at which the file's first frame is shown: the least of its first packets' stamps."""
    stamps: list[int] = []
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.pts is None:
            return None
        stamps.append(packet.pts)
        if len(stamps) > _REORDERED:
            break
    return min(stamps, default=None)


def check_count(source: Source, count: int, limits: Limits) -> None:
    if count > limits.video_frames:
        raise TooLong(f"{source.name} has more than {limits.video_frames} frames (limit video_frames)")


def _numbered(keys: Sequence[tuple[int, int]], stamps: Sequence[int]) -> tuple[KeyFrame, ...]:
    return tuple(KeyFrame(bisect_left(stamps, stamp), seek_to) for stamp, seek_to in sorted(keys))


def tick_s(stream: av.video.VideoStream) -> float:
    """Seconds of one unit of its time stamps."""
    return float(stream.time_base) if stream.time_base else 1 / 90_000
