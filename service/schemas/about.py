"""Answers of `/v1/models`, `/v1/modalities` and `/v1/limits`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Tower(BaseModel):
    kind: str
    precision: str
    device: str
    runtime: str = Field(description="name and version of what computes the vectors")
    provider: str = Field(description="the runtime's own name of what executes")
    max_batch: int
    logit_scale: float | None
    prompts: list[str]
    parity: dict[str, Any] | None = Field(
        description="how far the graph is from its reference, as measured at export; null: not measured in this precision"
    )


class ModelAnswer(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="always 0; a bundle does not say when it was made")
    owned_by: str
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
