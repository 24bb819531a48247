"""Clips: the grid of windows that a long medium is cut into, the same one for its picture and its sound.

Windows start at every multiple of the stride. The last one ends where the medium does, and is joined to the one before
when it would be shorter than `SHORTEST_S`. Times are rounded to milliseconds, so that a file has the same windows each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bindery.decoded import Extent
from bindery.errors import BinderyError, InvalidParameter, TooLong
from bindery.limits import Limits
from bindery.spec import PartOptions
from bindery.vectors import Vectors, normalize

SHORTEST_S = 2.0
DEFAULT_SECONDS = 10.0
STRIDE_SHARE = 0.8  # of clip_seconds, when no stride is given: neighbours share a fifth, so no moment is cut in two


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start`` to ``end``, seconds from the medium's beginning."""

    start: float
    end: float
    is_whole: bool = False  # all of the medium: then it has the medium's own vector, and in a collection its id

    @property
    def options(self) -> PartOptions:
        """The options that take just this part."""
        return PartOptions() if self.is_whole else PartOptions(start=self.start, end=self.end)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One window with its vector ``(d,)`` float32 of unit length, or with what this part of the medium failed with."""

    window: Window
    vector: Vectors | BinderyError


def windows(name: str, extent: Extent, options: PartOptions, limits: Limits) -> list[Window]:
    """The windows of a medium, or of its part from ``options.start`` to ``options.end``; at least one.

    Those that begin after the stream's end are left out: the sound of a file may be shorter than its picture.
    Raises `InvalidParameter`, and `TooLong` beyond ``limits.clips``.
    """
    seconds = options.clip_seconds
    assert seconds is not None, "windows are asked of options without clip_seconds. This is a bug."
    if seconds + SHORTEST_S > limits.media_seconds:
        most = limits.media_seconds - SHORTEST_S
        raise InvalidParameter(f"clip_seconds is {seconds:g}; at most {most:g} (limit media_seconds)", pointer="/options/clip_seconds")
    start_s = options.start or 0.0
    stop_s = extent.file_s if options.end is None else min(options.end, extent.file_s)
    if start_s > 0 and start_s >= min(stop_s, extent.stream_s):
        raise InvalidParameter(f"start is {start_s:g} s, but {name} lasts {extent.stream_s:.3f} s", pointer="/options/start")
    start, stop, length, stride = (_ms(value) for value in (start_s, stop_s, seconds, options.clip_stride or STRIDE_SHARE * seconds))
    count = 1 + -(-max(stop - start - length, 0) // stride)  # rounded up
    if count > limits.clips:
        raise TooLong(
            f"{name} lasts {extent.file_s:.0f} s: {count} clips of {seconds:g} s; one item has at most {limits.clips} (limit clips): "
            "take longer clips, a longer stride, or a part with start and end"
        )
    starts = [start + number * stride for number in range(count)]
    if count > 1 and stop - starts[-1] < min(_ms(SHORTEST_S), length):
        starts.pop()
    ends = [*(at + length for at in starts[:-1]), max(stop, starts[-1] + 1)]
    is_whole = len(starts) == 1 and options.start is None and options.end is None
    cut = [Window(at / 1000, end / 1000, is_whole) for at, end in zip(starts, ends, strict=True)]
    return [window for window in cut if window.start < extent.stream_s] or cut[:1]


def mean_vector(clips: Sequence[Clip]) -> Vectors:
    """The mean of the clips that have a vector, at unit length again: ``(d,)``. There must be one."""
    good = [clip.vector for clip in clips if not isinstance(clip.vector, BinderyError)]
    return normalize(np.asarray(np.stack(good).mean(axis=0, dtype=np.float64)))  # (clips, d) -> (d,)


def failure(clips: Sequence[Clip]) -> BinderyError | None:
    """What a medium fails with as a whole: its first clip's error, when no clip has a vector."""
    errors = [clip.vector for clip in clips if isinstance(clip.vector, BinderyError)]
    return errors[0] if errors and len(errors) == len(clips) else None


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1) if seconds > 0 else 0
