"""Bodies of `/v1/label-sets`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.schemas.embed import Many, Strict


class LabelSetBody(Strict):
    labels: Many[str] = Field(min_length=1)
    templates: Many[str] | None = Field(None, min_length=1, description="prompts with one {} for the label; default: the bundle's own")


class LabelSetAnswer(BaseModel):
    name: str
    labels: list[str]
    templates: list[str] | None


class LabelSetsAnswer(BaseModel):
    label_sets: list[LabelSetAnswer]
