"""Bodies and answers of `/v1/models`, `/v1/modalities` and `/v1/limits`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from bindery.bundle import Precision
from bindery.runtime.open import Device
from service.schemas.embed import Strict


class TuningAnswer(BaseModel):
    threads: int = Field(description="of one run of the graph on the processor")
    max_batch: int = Field(description="most items of one run")
    calibrated: bool = Field(description="whether `bindery calibrate` was run for it on this machine")


class Tower(BaseModel):
    kind: str
    precision: str
    device: str
    runtime: str = Field(description="name and version of what computes the vectors")
    provider: str = Field(description="the runtime's own name of what executes")
    max_batch: int = Field(description="most that the graph takes")
    tuning: TuningAnswer
    logit_scale: float | None
    min_similarity: float | None = Field(description="a best label whose cosine is lower is marked `unknown`; null: not measured")
    prompts: list[str]
    parity: dict[str, Any] | None = Field(
        description="how far the graph is from its reference, as measured at export; null: not measured in this precision"
    )


class ModelBody(Strict):
    """What to load under the name. What is not said is as the server was started with."""

    bundle: str | None = Field(
        None,
        min_length=1,
        description="a directory below the bundles directory, or a packaged bundle's name; default: what has the name now",
    )
    precision: Precision | None = None
    device: Device | None = None
    default: bool = Field(False, description="whether it answers, from now on, requests that name no model")


class ModelAnswer(BaseModel):
    id: str = Field(description="the name that requests choose it by")
    object: Literal["model"] = "model"
    created: int = Field(description="always 0; a bundle does not say when it was made")
    owned_by: str
    bundle: str = Field(description="the name that its manifest gives")
    default: bool = Field(description="whether it answers requests that name no model")
    version: str
    licence: str
    space: str
    dimension: int
    digest: str
    state: str
    modalities: dict[str, Tower]


class ModelsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelAnswer]


class ModalityAnswer(BaseModel):
    name: str
    kind: str
    media_types: list[str] = Field(description="accepted, by the file's first bytes")
    suffixes: list[str] = Field(description="usual file names; for file choosers, never trusted")
    options: dict[str, Any] = Field(description="JSON schema of the options")
    limits: dict[str, float]


class ModalitiesAnswer(BaseModel):
    model: str
    dimension: int
    space: str
    modalities: list[ModalityAnswer]


class Limit(BaseModel):
    value: float
    of: str


class LimitsAnswer(BaseModel):
    limits: dict[str, Limit]
