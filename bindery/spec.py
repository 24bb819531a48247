"""Specs: how a file of each kind becomes a tensor, as frozen data that travels in the bundle.

One class per *kind* of input. A bundle names any number of modalities, each with one spec, so a new modality of
a known kind is a manifest entry. Every choice that the reference makes silently, or fails at, is a named field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Triple = tuple[float, float, float]

CLIP_SECONDS = 10.0
"""What ``clip_seconds`` is where clips are asked for and it is not said."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextSpec(_Frozen):
    """Text → ``input_ids`` (and ``attention_mask``), both int64, trimmed to the longest text of the batch."""

    kind: Literal["text"] = "text"
    tokenizer: str = Field(description="path of a `tokenizer.json` inside the bundle")
    context_length: int = Field(77, gt=2, description="tokens, special ones included; longer texts are cut and reported")
    cleanup: Literal["ftfy_lower", "none"] = Field(
        "ftfy_lower", description="ftfy_lower: ftfy, white space to one blank, lower case (the CLIP way)"
    )
    pad_id: int = Field(49407, ge=0, description="fills shorter texts of a batch")
    attention_mask: bool = Field(False, description="the graph takes a mask; without one, padding must not reach the pooled token")


class _PixelSpec(_Frozen):
    size: int = Field(224, gt=0, description="side of the square crop, px")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = Field(False, description="widen the filter when shrinking (off: the reference's pinned stack)")
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD

    @model_validator(mode="after")
    def _deviations_are_positive(self) -> _PixelSpec:
        if min(self.std) <= 0:
            raise ValueError("std must be positive (are mean and std swapped?)")
        return self


class ImageSpec(_PixelSpec):
    """Picture → ``pixel_values`` (3, size, size) float32."""

    kind: Literal["image"] = "image"
    exif: Literal["ignore", "apply"] = "ignore"
    alpha: Literal["drop", "white"] = Field("drop", description="transparent pixels: keep their colour, or composite on white")


class ThermalSpec(_PixelSpec):
    """Thermal picture, rendered (8-bit RGB or gray) or radiometric (16-bit, float) → ``pixel_values`` (3, size, size) float32."""

    kind: Literal["thermal"] = "thermal"
    exif: Literal["ignore", "apply"] = "ignore"
    alpha: Literal["drop", "white"] = "drop"
    range_min: float | None = Field(None, description="stored value shown black when the caller states no range")
    range_max: float | None = Field(None, description="stored value shown white when the caller states no range")


class DepthSpec(_PixelSpec):
    """Depth map → ``pixel_values`` (3, size, size) float32: metres, clipped, divided by ``max_depth_m``, three equal channels."""

    kind: Literal["depth"] = "depth"
    min_depth_m: float = Field(0.01, ge=0, description="clip from below; holes (0) become this")
    max_depth_m: float = Field(10.0, ge=0, description="clip from above and divide by it; 0: divide by the picture's own maximum")
    depth_8bit: Literal["reject", "millimetres"] = Field(
        "reject", description="8-bit files without a stated scale: refuse, or read as the reference does"
    )


class VideoSpec(_PixelSpec):
    """Video → ``pixel_values`` (3, frames, size, size) float32; normalised before the resize, as the reference does."""

    kind: Literal["video"] = "video"
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    frames: int = Field(8, gt=0, description="frames: index i of T is floor(i * (N - 1) / (T - 1))")
    rotation: Literal["ignore", "apply"] = Field("apply", description="turn the picture as the container's display matrix says")


class AudioSpec(_Frozen):
    """Sound → ``pixel_values`` (windows, mel_bins, frames) float32 log-mel, ``(x - mean) / divisor``."""

    kind: Literal["audio"] = "audio"
    sample_rate: int = Field(16_000, gt=0, description="Hz")
    mel_bins: int = Field(112, gt=0)
    frames: int = Field(1036, gt=0, description="10 ms steps of the mel picture")
    low_hz: float = Field(20.0, ge=0)
    high_hz: float = Field(0.0, description="upper edge of the filter bank; 0: half the sample rate")
    preemphasis: float = Field(0.97, ge=0, lt=1, description="share of the sample before that is taken from each; 0: none")
    frame_mean: Literal["removed", "kept"] = Field("removed", description="what becomes of the mean of each 25 ms frame")
    spectrum: Literal["power", "magnitude"] = Field("power", description="what the filter bank sums")
    log_offset: float = Field(0.0, ge=0, description="added before the logarithm; 0: a floor at the least float32 step instead")
    mean: float = -4.2677393
    divisor: float = Field(9.1379948, gt=0, description="twice the standard deviation in the reference")
    audio_channels: Literal["first", "mean"] = "first"
    windows: int = Field(3, gt=0, le=64, description="mel pictures that a sound becomes, one a channel")
    long_audio: Literal["thirds_first", "thirds_middle", "even", "head"] = Field(
        "thirds_first",
        description="too long: windows at the first or the middle start of each part (a third, where there are three), evenly from the "
        "beginning to the end, or all at the beginning",
    )
    short_audio: Literal["repeat", "repeat_pad"] = Field(
        "repeat",
        description="repeat: the mel picture, cut to length; repeat_pad: the sound a whole number of times, then zeros (the paper)",
    )
    too_short: Literal["pad", "reject"] = Field(
        "pad", description="below one 25 ms frame: pad with zeros to one frame, or refuse as the reference does"
    )
    resampler: Literal["sinc_hann", "soxr"] = Field("sinc_hann", description="sinc_hann: the reference's windowed sinc; soxr: soxr HQ")


Spec = Annotated[TextSpec | ImageSpec | VideoSpec | AudioSpec | DepthSpec | ThermalSpec, Field(discriminator="kind")]


class _Options(_Frozen):
    """What a caller may say about one item of a kind. Unknown names are errors."""


class TextOptions(_Options):
    pass


class ImageOptions(_Options):
    pass


class DepthOptions(_Options):
    depth_unit: Literal["m", "mm"] | None = Field(
        None, description="unit of the stored values (integer files: mm, float files: m, unless stated)"
    )
    depth_scale: float | None = Field(None, gt=0, allow_inf_nan=False, description="metres per stored unit; stands over depth_unit")


class ThermalOptions(_Options):
    range_min: float | None = Field(None, allow_inf_nan=False, description="stored value (kelvin or raw) shown black")
    range_max: float | None = Field(None, allow_inf_nan=False, description="stored value (kelvin or raw) shown white")

    @model_validator(mode="after")
    def _range_is_whole(self) -> ThermalOptions:
        if (self.range_min is None) != (self.range_max is None):
            raise ValueError("range_min and range_max go together")
        if self.range_min is not None and self.range_max is not None and self.range_max <= self.range_min:
            raise ValueError("range_max must be greater than range_min")
        return self


class PartOptions(_Options):
    """Which part of a video or a sound to take, in seconds from its start; whole, or cut into clips."""

    start: float | None = Field(None, ge=0, allow_inf_nan=False, description="seconds")
    end: float | None = Field(None, gt=0, allow_inf_nan=False, description="seconds")
    clip_seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="cut into clips of so many seconds, a vector each; by scenes: of so many at most"
    )
    clip_stride: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="seconds from one clip's start to the next; default: 0.8 of clip_seconds"
    )
    clip_by: Literal["seconds", "scenes"] = Field(
        "seconds", description="scenes: a clip for each scene of the picture; a longer one than clip_seconds (10) is cut evenly"
    )
    clip_min_seconds: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="a shorter scene is joined to the one after it; default: 2, or clip_seconds if less"
    )
    pool: Literal["none", "mean"] = Field("none", description="mean: also one vector of the whole, the mean of its clips'")

    @model_validator(mode="before")
    @classmethod
    def _scenes_are_clips(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("clip_by") == "scenes" and given.get("clip_seconds") is None:
            return {**given, "clip_seconds": CLIP_SECONDS}
        return given

    @model_validator(mode="after")
    def _part_is_forward(self) -> PartOptions:
        if self.end is not None and self.end <= (self.start or 0.0):
            raise ValueError("end must be greater than start")
        return self

    @model_validator(mode="after")
    def _clips_leave_no_gap(self) -> PartOptions:
        if self.clip_seconds is None and (self.clip_stride is not None or self.pool != "none"):
            raise ValueError("clip_stride and pool go with clip_seconds")
        if self.clip_seconds is not None and (self.clip_stride or 0.0) > self.clip_seconds:
            raise ValueError("clip_stride must not exceed clip_seconds: what lies between two clips would be in none")
        return self

    @model_validator(mode="after")
    def _scenes_have_no_grid(self) -> PartOptions:
        if self.clip_by == "scenes" and self.clip_stride is not None:
            raise ValueError("clip_stride goes with clips by seconds; scenes follow each other")
        if self.clip_by != "scenes" and self.clip_min_seconds is not None:
            raise ValueError("clip_min_seconds goes with clip_by=scenes")
        if self.clip_seconds is not None and (self.clip_min_seconds or 0.0) > self.clip_seconds:
            raise ValueError("clip_min_seconds must not exceed clip_seconds")
        return self


Options = TextOptions | ImageOptions | DepthOptions | ThermalOptions | PartOptions
