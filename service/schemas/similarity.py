"""Bodies of `/v1/similarity`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.schemas.embed import Many, MediaInput, Strict

EXAMPLE = {
    "left": [{"modality": "text", "text": "a dog barking"}, "rain on a roof"],
    "right": [{"modality": "audio", "data": "data:audio/wav;base64,UklGRg…"}],
}


class AnyInput(MediaInput):
    """One input of any modality; a plain string is a text."""

    modality: str | None = Field(None, description="needed unless the input is a text")


class SimilarityBody(Strict):
    left: Many[AnyInput] = Field(description="the rows of the matrix")
    right: Many[AnyInput] = Field(description="its columns")
    model: str | None = None


class SimilarityAnswer(BaseModel):
    model: str
    space: str
    similarity: list[list[float]] = Field(description="cosines: row i is left[i], column j is right[j]")
    usage: dict[str, float]
