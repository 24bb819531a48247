"""Where the scene of a video changes: hard cuts, found in small copies of its frames, a stretch of the video at a time.

A cut is where the last picture before differs from all of those just after, and the first one after from all of those just
before, by more than movement can do. So a flash is no cut (what comes after it is like what was before), nor is a pan, a
zoom or a dissolve (neighbours differ as much). FFmpeg's own detector, `scdet`, compares neighbours only and takes a flash for a cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import av.container
import av.video
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from bindery.decoded import Cuts
from bindery.errors import NoVideoStream, UnreadableMedia
from bindery.limits import Limits
from bindery.media.container import open_container
from bindery.media.guard import check_bytes, check_pixels
from bindery.media.sniff import HEAD_BYTES, sniff
from bindery.media.source import Source
from bindery.media.timeline import first_stamp, tick_s
from bindery.media.video import MEDIA_TYPES, video_stream

DETECTOR = 1
"""Of which make the cuts are: it is raised when other cuts would be found, since vectors of clips depend on them."""

_WIDTH, _HEIGHT = 48, 27  # of the copies
_LEAST = 10.0  # mean difference of a value (0 to 255) across a cut
_RATIO = 3.0  # of the difference across a cut to that of neighbours on either side of it
_MARGIN = 1.25  # beyond what so many steps between neighbours can add up to
_SIDE_S, _SIDES = 0.15, (2, 5)  # how long a side of a cut is looked at, and in how many frames at least and most: a flash is shorter
_PIXELS = 1_500_000_000  # of a stretch: some seconds of decoding, well below the limit of a decoder's task
_STRETCH_S = (2.0, 60.0)
_STEPS_BACK_S = (0.0, 0.5, 8.0, 64.0, 1e9)

_Copy = NDArray[np.int16]  # (_HEIGHT, _WIDTH, 3)


def find_cuts(source: Source, limits: Limits, start: float, end: float) -> Cuts:
    """The cuts of the stretch that begins ``start`` seconds from the file's first frame, and goes on to ``end`` at most.

    How long a stretch is depends on the size and the rate of the frames alone. A file without a picture has no cuts, nor
    has what cannot be decoded: its clips tell that. Raises `EmptyMedia`, `TooManyBytes`, `TooManyPixels`.
    """
    check_bytes(source, limits)
    media_type = sniff(source.head(HEAD_BYTES))
    if media_type not in MEDIA_TYPES:
        return Cuts((), end)
    cuts: list[float] = []
    until = end
    try:
        with open_container(source, media_type, limits) as container:
            stream = video_stream(source, container, limits)
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            until = min(end, start + stretch_s(stream.width, stream.height, rate))
            side = min(max(round(rate * _SIDE_S), _SIDES[0]), _SIDES[1])
            copies = _copies(source, limits, container, stream, start - (side + 1) / rate)
            cuts += (cut for cut in _cuts(copies, side, until) if cut >= start)
    except (NoVideoStream, UnreadableMedia):
        pass
    return Cuts(tuple(cuts), until)


def stretch_s(width: int, height: int, rate: float) -> float:
    """How many seconds of such a video are looked at in one task of a decoder."""
    shortest, longest = _STRETCH_S
    return min(max(_PIXELS / (width * height * max(rate, 1.0)), shortest), longest)


def _copies(
    source: Source, limits: Limits, container: av.container.InputContainer, stream: av.video.VideoStream, start: float
) -> Iterator[tuple[float, _Copy]]:
    """Small copies of the frames shown from ``start`` on, each with its time."""
    origin = first_stamp(container, stream)
    shrink = VideoReformatter()
    for frame in _frames_from(container, stream, origin or 0, start):
        check_pixels(source.name, frame.width, frame.height, limits)
        if frame.pts is None:
            raise UnreadableMedia(f"{source.name}: its frames have no times")
        time_s = (frame.pts - (origin or 0)) * tick_s(stream)
        if time_s >= start:
            small = shrink.reformat(frame, width=_WIDTH, height=_HEIGHT, format="rgb24", interpolation="AREA")
            yield time_s, small.to_ndarray().astype(np.int16)


def _frames_from(
    container: av.container.InputContainer, stream: av.video.VideoStream, origin: int, start: float
) -> Iterator[av.video.VideoFrame]:
    """All frames from one that is shown at ``start`` seconds or before."""
    first = origin + int(start / tick_s(stream))
    for back_s in _STEPS_BACK_S:  # key frames are found by decoding time, which runs ahead of the time they are shown at
        seek_to = max(first - int(back_s / tick_s(stream)), origin)
        container.seek(seek_to, stream=stream)
        decoded = container.decode(stream)
        frame = next(decoded, None)
        if frame is None:
            continue
        if frame.pts is None or frame.pts <= first or seek_to == origin:
            yield frame
            yield from decoded
            return


def _cuts(copies: Iterator[tuple[float, _Copy]], side: int, until: float) -> Iterator[float]:
    """The time of each first frame after a cut. ``side``: how many frames are looked at on either side of it."""
    times: deque[float] = deque(maxlen=2 * side)
    seen: deque[_Copy] = deque(maxlen=2 * side)
    steps: deque[float] = deque(maxlen=2 * side)  # from the frame before to each of those seen
    for time_s, copy in copies:
        steps.append(_apart(seen[-1], copy) if seen else 0.0)
        times.append(time_s)
        seen.append(copy)
        if len(seen) < 2 * side:
            continue
        if times[side] >= until:
            return
        if _is_cut(list(seen), list(steps), side):
            yield times[side]


def _is_cut(seen: list[_Copy], steps: list[float], side: int) -> bool:
    if steps[side] < _LEAST:
        return False
    # Where frames are repeated, as in drawings, only some neighbours differ; where one differs alone, that is a flash.
    moves = sorted(steps[1:side] + steps[side + 1 :])[-2]
    before, after = seen[side - 1], seen[side]
    apart = [(gap, _apart(before, later)) for gap, later in enumerate(seen[side:], 1)]
    apart += [(gap, _apart(earlier, after)) for gap, earlier in enumerate(reversed(seen[:side]), 1)]
    return all(difference >= max(_LEAST, moves * max(_RATIO, _MARGIN * gap)) for gap, difference in apart)


def _apart(one: _Copy, other: _Copy) -> float:
    return float(np.abs(one - other).mean())
