"""Clips: the windows that a long medium is cut into, the same ones for its picture and its sound.

By seconds, windows start at every multiple of the stride. The last one ends where the medium does, and is joined to the one
before when it would be shorter than `SHORTEST_S`. By scenes, they lie from cut to cut of the picture; a medium without
a picture is one scene. Times are whole milliseconds, so that a file has the same windows each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bindery.decoded import Extent
from bindery.errors import BinderyError, InvalidParameter, TooLong
from bindery.limits import Limits
from bindery.spec import PartOptions
from bindery.vectors import Vectors, normalize

SHORTEST_S = 2.0
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


def part(name: str, extent: Extent, options: PartOptions, limits: Limits) -> tuple[float, float]:
    """Where what is to be cut begins and ends, in seconds: the medium, or its part from ``options.start`` to ``options.end``.

    Raises `InvalidParameter`, and `TooLong` when there would be more than ``limits.clips`` for certain.
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
    least = -(-max(_ms(stop_s) - _ms(start_s) - _ms(seconds), 0) // _ms(_stride(options)))  # rounded up
    _check_count(name, extent, 1 + least, options, limits)
    return start_s, stop_s


def windows(name: str, extent: Extent, options: PartOptions, limits: Limits, cuts: Iterable[float] = ()) -> list[Window]:
    """The windows of a medium, or of its part from ``options.start`` to ``options.end``; at least one.

    ``cuts``: by scenes, where they change, in seconds. Windows that begin after the stream's end are left out: the sound of a
    file may be shorter than its picture. Raises `InvalidParameter`, and `TooLong` beyond ``limits.clips``.
    """
    start, stop = (_ms(edge) for edge in part(name, extent, options, limits))
    assert options.clip_seconds is not None
    length = _ms(options.clip_seconds)
    if options.clip_by == "scenes":
        least = SHORTEST_S if options.clip_min_seconds is None else options.clip_min_seconds
        spans = _scenes([_ms_before(cut) for cut in cuts], start, stop, min(_ms(least), length), length)
        _check_count(name, extent, len(spans), options, limits)
    else:
        spans = _grid(start, stop, length, _ms(_stride(options)))
    is_whole = len(spans) == 1 and options.start is None and options.end is None
    cut_at = [Window(at / 1000, end / 1000, is_whole) for at, end in spans]
    return [window for window in cut_at if window.start < extent.stream_s] or cut_at[:1]


def mean_vector(clips: Sequence[Clip]) -> Vectors:
    """The mean of the clips that have a vector, at unit length again: ``(d,)``. There must be one."""
    good = [clip.vector for clip in clips if not isinstance(clip.vector, BinderyError)]
    return normalize(np.asarray(np.stack(good).mean(axis=0, dtype=np.float64)))  # (clips, d) -> (d,)


def failure(clips: Sequence[Clip]) -> BinderyError | None:
    """What a medium fails with as a whole: its first clip's error, when no clip has a vector."""
    errors = [clip.vector for clip in clips if isinstance(clip.vector, BinderyError)]
    return errors[0] if errors and len(errors) == len(clips) else None


def _stride(options: PartOptions) -> float:
    """Seconds from one window to the next, where no scene ends before."""
    assert options.clip_seconds is not None
    return options.clip_seconds if options.clip_by == "scenes" else options.clip_stride or STRIDE_SHARE * options.clip_seconds


def _check_count(name: str, extent: Extent, count: int, options: PartOptions, limits: Limits) -> None:
    if count > limits.clips:
        longer = "a longer stride" if options.clip_by == "seconds" else "a larger clip_min_seconds"
        raise TooLong(
            f"{name} lasts {extent.file_s:.0f} s: {count} clips of {options.clip_seconds:g} s; "
            f"one item has at most {limits.clips} (limit clips): take longer clips, {longer}, or a part with start and end"
        )


def _grid(start: int, stop: int, length: int, stride: int) -> list[tuple[int, int]]:
    """Windows of one length, at every stride; all in milliseconds."""
    count = 1 + -(-max(stop - start - length, 0) // stride)  # rounded up
    starts = [start + number * stride for number in range(count)]
    if count > 1 and stop - starts[-1] < min(_ms(SHORTEST_S), length):
        starts.pop()
    ends = [*(at + length for at in starts[:-1]), max(stop, starts[-1] + 1)]
    return list(zip(starts, ends, strict=True))


def _scenes(cuts: Iterable[int], start: int, stop: int, shortest: int, longest: int) -> list[tuple[int, int]]:
    """Windows from cut to cut, long ones divided; all in milliseconds."""
    edges = [start]
    for cut in cuts:
        if edges[-1] < cut < stop and cut - edges[-1] >= shortest:
            edges.append(cut)
    if len(edges) > 1 and stop - edges[-1] < shortest:
        edges.pop()
    spans: list[tuple[int, int]] = []
    for first, last in pairwise([*edges, max(stop, edges[-1] + 1)]):
        count = -(-(last - first) // longest)
        inner = [first + (last - first) * number // count for number in range(count)]
        spans += pairwise([*inner, last])
    return spans


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1) if seconds > 0 else 0


def _ms_before(cut: float) -> int:
    """Rounded down, so that the first frame of a scene is not also the last one of the scene before."""
    return int(cut * 1000 + 1e-6)
