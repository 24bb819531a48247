"""Video: the wanted frames of a file, by frame number, as 8-bit RGB. Memory holds only those frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av.container
import av.stream
import av.video
import numpy as np
from numpy.typing import NDArray

from bindery.decoded import Frames
from bindery.errors import NoVideoStream, UnreadableMedia
from bindery.limits import Limits
from bindery.media.container import open_container
from bindery.media.guard import check_pixels, check_seconds
from bindery.media.sniff import require_type
from bindery.media.source import Source
from bindery.media.timeline import Timeline, count_timeline, read_stretch, read_timeline

MEDIA_TYPES = ("video/mp4", "video/quicktime", "video/webm", "video/x-matroska", "video/x-msvideo")
_WORTH_A_SEEK = 8  # frames of decoding that a seek must save


def frame_indices(count: int, wanted: int) -> tuple[int, ...]:
    """Which of ``count`` frames the ``wanted`` ones are: floor(i * (count - 1) / (wanted - 1)); first and last are always in."""
    return tuple(i * (count - 1) // max(wanted - 1, 1) for i in range(wanted))


def decode_frames(source: Source, limits: Limits, *, n_frames: int, start: float | None = None, end: float | None = None) -> Frames:
    """``n_frames`` frames spread evenly over the file, or over its part from ``start`` to ``end`` seconds.

    Raises `UnsupportedMedia`, `NoVideoStream`, `EmptyMedia`, `TooLong`, `TooManyPixels`, `UnreadableMedia`;
    `InvalidParameter` when ``start`` lies beyond the end.
    """
    media_type = require_type(source, MEDIA_TYPES, "video")
    if start is not None or end is not None:
        frames = _stretch(source, media_type, limits, n_frames, start, end)
        if frames is not None:
            return frames
    with open_container(source, media_type, limits) as container:
        stream = video_stream(source, container, limits)
        if stream.duration and stream.time_base:
            _check_length(source, float(stream.duration * stream.time_base), start, end, limits)
        timeline = read_timeline(source, container, stream, limits)
        _check_length(source, timeline.length_s, start, end, limits)
    if timeline.is_reliable:
        frames = _frames(source, media_type, timeline, limits, n_frames, start, end)
        if frames is not None:
            return frames
    # The packets did not say which frames there are: decode once to count them, once more to take them.
    with open_container(source, media_type, limits) as container:
        timeline = count_timeline(source, container, video_stream(source, container, limits), limits)
    frames = _frames(source, media_type, timeline, limits, n_frames, start, end)
    if frames is None:
        raise UnreadableMedia(f"{source.name}: decoding it twice gave different frames; the file is damaged")
    return frames


def _stretch(source: Source, media_type: str, limits: Limits, n_frames: int, start: float | None, end: float | None) -> Frames | None:
    """The frames of a part, found by reading around it; None where the file has to be read whole."""
    with open_container(source, media_type, limits) as container:
        stream = video_stream(source, container, limits)
        if stream.duration and stream.time_base:
            _check_length(source, float(stream.duration * stream.time_base), start, end, limits)
        timeline = read_stretch(source, container, stream, limits, start, end)
    if timeline is None:
        return None
    _check_length(source, timeline.length_s, start, end, limits)
    return _frames(source, media_type, timeline, limits, n_frames, start, end)


def video_stream(source: Source, container: av.container.InputContainer, limits: Limits) -> av.video.VideoStream:
    """The stream that is the file's picture. Raises `NoVideoStream`, `UnreadableMedia`, `TooManyPixels`."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:  # cover art is no video
            context = stream.codec_context
            if context.width < 1 or context.height < 1:
                raise UnreadableMedia(f"{source.name}: its video stream states no picture size")
            check_pixels(source.name, context.width, context.height, limits)
            context.thread_count = 1  # the pool decodes items side by side; threads inside one would fight it for cores
            return stream
    raise NoVideoStream(f"{source.name} has no video stream")


def _check_length(source: Source, length_s: float, start: float | None, end: float | None, limits: Limits) -> None:
    check_seconds(source.name, min(length_s, end or length_s) - (start or 0.0), limits)


def _frames(
    source: Source, media_type: str, timeline: Timeline, limits: Limits, n_frames: int, start: float | None, end: float | None
) -> Frames | None:
    """The frames of the part, or None when the file does not yield one that the timeline promised."""
    part = timeline.part(source.name, start, end)
    indices = frame_indices(len(part), n_frames)
    wanted = sorted({part[index] for index in indices})
    taken: dict[int, NDArray[np.uint8]] = {}
    rotation = 0
    with open_container(source, media_type, limits) as container:
        stream = video_stream(source, container, limits)
        walk = _by_stamp(container, stream, timeline, wanted) if timeline.is_reliable else _by_count(container, stream, wanted)
        for number, frame in walk:
            check_pixels(source.name, frame.width, frame.height, limits)
            if not taken:
                size, rotation = (frame.width, frame.height), frame.rotation
            # swscale's defaults: the same pixels as decord, which the reference used. A changed size is scaled to the first.
            taken[number] = np.asarray(frame.to_ndarray(format="rgb24", width=size[0], height=size[1]), dtype=np.uint8)
    if len(taken) < len(wanted):
        return None
    pixels = np.stack([taken[part[index]] for index in indices])  # (frames, height, width, 3)
    times_s = tuple(timeline.time_s(part[index]) for index in indices)
    return Frames(pixels, indices, times_s, round(rotation / 90) * 90 % 360)


def _by_stamp(
    container: av.container.InputContainer, stream: av.video.VideoStream, timeline: Timeline, wanted: Sequence[int]
) -> Iterator[tuple[int, av.video.VideoFrame]]:
    """Wanted frames recognised by their time stamps, seeking over what nobody asked for."""
    # Number of the next frame that decoding gives; of a stretch, decoding begins outside.
    position = 0 if timeline.origin is None else -_WORTH_A_SEEK
    decoded = container.decode(stream)
    for number in wanted:
        key = timeline.key_before(number)
        if key is not None and key.number - position >= _WORTH_A_SEEK:
            container.seek(key.seek_to, stream=stream)
            decoded = container.decode(stream)
        for frame in decoded:
            if frame.pts == timeline.stamps[number]:
                yield number, frame
                break
            if frame.pts is None or frame.pts > timeline.stamps[number]:
                return  # the promised frame is not there
        position = number + 1


def _by_count(
    container: av.container.InputContainer, stream: av.video.VideoStream, wanted: Sequence[int]
) -> Iterator[tuple[int, av.video.VideoFrame]]:
    numbers = frozenset(wanted)
    for number, frame in enumerate(container.decode(stream)):
        if number in numbers:
            yield number, frame
        if number >= wanted[-1]:
            return
