"""Bodies of `/v1/embeddings`: OpenAI's, with media parts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bindery.vectors import Encoding
from service.schemas.embed import Many, Text

EXAMPLE = {
    "model": "starter",
    "input": ["a dog barking", {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo…"}}],
    "encoding_format": "float",
}


class EmbeddingsBody(BaseModel):
    """Members that we do not know are passed over, as clients of other servers send some of their own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input: Text | Many[int] | Many[Text | Many[int] | dict[str, Any]] = Field(
        description="a string, token ids, or a list of strings, of lists of token ids, of data: URIs, or of parts "
        '`{"type": "text" | "image_url" | "input_audio" | "video_url" | a modality\'s name ...}`; each entry is one embedding'
    )
    model: str | None = Field(None, description="a name of `GET /v1/models`; without one, the default model")
    encoding_format: Encoding = "float"
    dimensions: int | None = Field(None, gt=0)
    user: str | None = Field(None, description="taken and not used")


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | list[int] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage
