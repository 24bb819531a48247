"""What a job is asked to do, and the identity of the pipeline that makes its vectors."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bindery.bundle import Bundle
from bindery.jobs.listing import Rule
from bindery.kinds import KINDS, parse_options
from bindery.media.scenes import DETECTOR
from bindery.spec import PartOptions


class JobSpec(BaseModel):
    """A source, a collection, and how the one goes into the other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1, max_length=4096, description="a folder, a manifest, a .tar or s3://BUCKET/PREFIX")
    collection: str = Field(description="where to put its files; made when it is missing")
    include: tuple[str, ...] = Field((), max_length=100, description="only files that match one of these globs")
    rules: dict[str, str] = Field(
        {}, max_length=100, description='globs with their modality, such as {"depth/**": "depth"}; the first decides'
    )
    fields: dict[str, str] = Field({}, max_length=100, description="metadata fields to declare when the collection is made")
    clip_seconds: float = Field(10.0, ge=0, allow_inf_nan=False, description="cut longer videos and sounds into clips so long; 0: never")
    clip_stride: float | None = Field(None, gt=0, allow_inf_nan=False, description="seconds between clips' starts; 0.8 of clip_seconds")
    clip_by: Literal["seconds", "scenes"] = Field(
        "seconds", description="scenes: a clip for each scene of a video, and those longer than clip_seconds evenly cut"
    )
    clip_min_seconds: float | None = Field(None, ge=0, allow_inf_nan=False, description="a shorter scene is joined to the next one; 2")
    prune: bool = Field(False, description="remove what an earlier job took from this source and is not there any more")
    force: bool = Field(False, description="prune also when the source lists nothing, or more than half would go")
    retry_failed: bool = Field(False, description="only the files that failed in the last job of this source and collection")
    max_error_rate: float = Field(1.0, ge=0, le=1, description="give the job up when a larger share of its files fails")

    def rule_list(self) -> list[Rule]:
        return [Rule(glob, modality) for glob, modality in self.rules.items()]

    def clip_options(self) -> PartOptions | None:
        """How media that last are cut; None when they are not. Raises `InvalidParameter` for what makes no grid."""
        given = {
            "clip_seconds": self.clip_seconds or (0 if self.clip_by == "scenes" else None),  # 0 scenes long is an error
            "clip_stride": self.clip_stride,
            "clip_by": self.clip_by,
            "clip_min_seconds": self.clip_min_seconds,
        }
        options = parse_options("video", {name: value for name, value in given.items() if value is not None})
        assert isinstance(options, PartOptions)
        return options if options.clip_seconds is not None else None

    def same_work(self, other: JobSpec) -> bool:
        """Whether an unfinished job of the one spec may be gone on with under the other: its limits may have changed."""
        limits = {"max_error_rate", "force"}
        return self.model_dump(exclude=limits) == other.model_dump(exclude=limits)


def pipeline_ids(bundle: Bundle, precision: str, cut: PartOptions | None) -> dict[str, str]:
    """For each modality a digest of all that decides a file's vectors beside its bytes."""
    return {name: _pipeline_id(bundle, name, precision, cut if lasts(bundle, name) else None) for name in bundle.manifest.modalities}


def lasts(bundle: Bundle, modality: str) -> bool:
    """Whether the modality's files have a length in time, and so can be cut."""
    return KINDS[bundle.modality(modality).kind].measure is not None


def modality_by_suffix(bundle: Bundle, name: str) -> str | None:
    """The modality that a file's suffix leaves no doubt about.

    A PNG may hold depth or heat, but most hold pictures; a rule says otherwise.
    """
    suffix = PurePosixPath(name).suffix.lower()
    candidates = [modality for modality in bundle.manifest.modalities if suffix in KINDS[bundle.modality(modality).kind].suffixes]
    if len(candidates) > 1 and "image" in candidates:
        return "image"
    return candidates[0] if len(candidates) == 1 else None


def _pipeline_id(bundle: Bundle, modality: str, precision: str, cut: PartOptions | None) -> str:
    grid: tuple[object, ...] | None = None if cut is None else (cut.clip_seconds, cut.clip_stride)
    if cut is not None and cut.clip_by == "scenes":
        grid = ("scenes", DETECTOR, cut.clip_seconds, cut.clip_min_seconds)
    return hashlib.sha256(f"{bundle.digest} {modality} {precision} {grid}".encode()).hexdigest()[:24]
