"""The registry of kinds: what a file of each kind is, and how it becomes tensors. A new kind is one row here.

Out of this room: `Kind.prepare(source, spec, options, limits) -> Prepared`, decode and prepare in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from pydantic import BaseModel, ValidationError

from bindery.decoded import Extent, Picture, Prepared
from bindery.errors import InvalidParameter, UnknownModality
from bindery.limits import Limits
from bindery.media import audio, image, raster, video
from bindery.media.extent import measure_audio, measure_video
from bindery.media.guard import check_bytes
from bindery.media.source import Source
from bindery.prepare.audio import prepare_audio
from bindery.prepare.depth import prepare_depth
from bindery.prepare.image import prepare_image
from bindery.prepare.thermal import prepare_thermal
from bindery.prepare.video import prepare_video
from bindery.spec import (
    AudioSpec,
    DepthOptions,
    DepthSpec,
    ImageOptions,
    ImageSpec,
    Options,
    PartOptions,
    Spec,
    TextOptions,
    TextSpec,
    ThermalOptions,
    ThermalSpec,
    VideoSpec,
)

Prepare = Callable[[Source, Spec, Options, Limits], Prepared]
Measure = Callable[[Source, Limits], Extent]


@dataclass(frozen=True)
class Kind:
    """One row: the spec and options classes, what is accepted, and the way from file to tensors (None for text).

    ``measure`` tells how long a file lasts without decoding it; None for kinds that do not last.
    """

    name: str
    spec: type[BaseModel]
    options: type[BaseModel]
    media_types: tuple[str, ...]
    suffixes: tuple[str, ...]
    prepare: Prepare | None
    measure: Measure | None = None


def parse_options(kind: str, values: Mapping[str, object]) -> Options:
    """Options of a kind from form fields or JSON. Raises `InvalidParameter` naming the field, `UnknownModality`."""
    if kind not in KINDS:
        raise UnknownModality(f"there is no kind {kind!r}; there are {', '.join(KINDS)}")
    options = KINDS[kind].options
    try:
        return cast(Options, options(**values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        known = ", ".join(options.model_fields) or "none"
        if first["type"] == "extra_forbidden":
            raise InvalidParameter(f"{field} is no option of {kind}; its options are: {known}", pointer=f"/options/{field}") from error
        reason = first["msg"].removeprefix("Value error, ")
        where = f"{field}: " if field else ""
        raise InvalidParameter(f"{where}{reason} (got {first['input']!r})", pointer=f"/options/{field}".rstrip("/")) from error


def _image(source: Source, spec: Spec, _: Options, limits: Limits) -> Prepared:
    assert isinstance(spec, ImageSpec)
    picture = image.decode_picture(source, limits)
    return Prepared(prepare_image(picture, spec), _usage(source, pixels=_area(picture.pixels.shape)))


def _thermal(source: Source, spec: Spec, options: Options, limits: Limits) -> Prepared:
    assert isinstance(spec, ThermalSpec)
    assert isinstance(options, ThermalOptions)
    stated = (options.range_min, options.range_max) if options.range_min is not None else (spec.range_min, spec.range_max)
    thermal = raster.decode_thermal(source, limits, range_min=stated[0], range_max=stated[1])
    shape = thermal.pixels.shape if isinstance(thermal, Picture) else thermal.values.shape
    return Prepared(prepare_thermal(thermal, spec), _usage(source, pixels=_area(shape)))


def _depth(source: Source, spec: Spec, options: Options, limits: Limits) -> Prepared:
    assert isinstance(spec, DepthSpec)
    assert isinstance(options, DepthOptions)
    depth = raster.decode_depth(source, limits, unit=options.depth_unit, scale=options.depth_scale, eight_bit=spec.depth_8bit)
    return Prepared(prepare_depth(depth, spec), _usage(source, pixels=_area(depth.values.shape)))


def _video(source: Source, spec: Spec, options: Options, limits: Limits) -> Prepared:
    assert isinstance(spec, VideoSpec)
    assert isinstance(options, PartOptions)
    _check_one(options)
    frames = video.decode_frames(source, limits, n_frames=spec.frames, start=options.start, end=options.end)
    return Prepared(prepare_video(frames, spec), _usage(source, video_frames=float(len(frames.indices))))


def _audio(source: Source, spec: Spec, options: Options, limits: Limits) -> Prepared:
    assert isinstance(spec, AudioSpec)
    assert isinstance(options, PartOptions)
    _check_one(options)
    waveform = audio.decode_waveform(source, limits, start=options.start, end=options.end)
    return Prepared(prepare_audio(waveform, spec), _usage(source, audio_seconds=waveform.samples.shape[1] / waveform.rate))


def _check_one(options: PartOptions) -> None:
    if options.clip_seconds is not None:
        raise InvalidParameter(
            "clip_seconds cuts an item into many, and here it must be one: leave it out, or take a part with start and end",
            pointer="/options/clip_seconds",
        )


def _checked(prepare: Prepare) -> Prepare:
    def run(source: Source, spec: Spec, options: Options, limits: Limits) -> Prepared:
        check_bytes(source, limits)
        return prepare(source, spec, options, limits)

    return run


def _usage(source: Source, **counts: float) -> dict[str, float]:
    return {**counts, "bytes": float(source.size_bytes)}


def _area(shape: tuple[int, ...]) -> float:
    return float(shape[0] * shape[1])


_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
_RASTERS = (".png", ".tif", ".tiff", ".npy", ".exr")
_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
_SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff")

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("text", TextSpec, TextOptions, ("text/plain",), (".txt",), None),
            Kind("image", ImageSpec, ImageOptions, image.MEDIA_TYPES, _PICTURES, _checked(_image)),
            Kind("video", VideoSpec, PartOptions, video.MEDIA_TYPES, _VIDEOS, _checked(_video), measure_video),
            Kind("audio", AudioSpec, PartOptions, audio.MEDIA_TYPES, _SOUNDS, _checked(_audio), measure_audio),
            Kind("depth", DepthSpec, DepthOptions, raster.DEPTH_TYPES, _RASTERS, _checked(_depth)),
            Kind("thermal", ThermalSpec, ThermalOptions, raster.THERMAL_TYPES, (*_PICTURES, ".npy", ".exr"), _checked(_thermal)),
        )
    }
)
