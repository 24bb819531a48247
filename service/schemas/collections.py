"""Bodies of `/v1/collections`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, WithJsonSchema, model_validator

from bindery.collections.model import FieldType
from service.schemas.embed import ItemError, Many, MediaInput, Strict, Text
from service.schemas.similarity import AnyInput

Metadata = dict[str, Any]
Filter = Annotated[Any, WithJsonSchema({"type": "object", "additionalProperties": True})]
"""Whatever it is, the collection judges it: every fault of a filter is the one error `invalid_filter`."""


class CollectionBody(Strict):
    fields: dict[str, FieldType] = Field(default_factory=dict, description="metadata names that filters may use, with their types")
    metric: Literal["cosine"] = "cosine"
    backend: Literal["local", "milvus"] | None = Field(None, description="what the server keeps collections in; another is refused")
    model: str | None = Field(None, description="the model whose space it gets; without one, the default model")


class PartitionAnswer(BaseModel):
    rows: int
    tier: str = Field(description="flat: every vector is compared; ivf_pq: codes are scanned and the best compared")
    segments: int
    recall: dict[str, float] = Field(description="recall@10 as measured here, by the modality asked with; any: queries that did not say")
    disk_bytes: int = Field(description="of its segments")
    memory_bytes: int = Field(description="0 until it is searched")


class CollectionAnswer(BaseModel):
    name: str
    space: str = Field(description="what its vectors may be compared with")
    dimension: int
    bundle: str
    fields: dict[str, FieldType]
    metric: Literal["cosine"]
    backend: Literal["local", "milvus"]
    items: int
    counts: dict[str, int] = Field(description="items by modality")
    tier: str = Field(description="how its largest modality is indexed")
    recall: float | None = Field(description="the lowest recall@10 measured for any modalities; 1.0 when exact, null when not measured")
    partitions: dict[str, PartitionAnswer] = Field(description="by modality; empty where the store does not tell")
    disk_bytes: int | None = Field(description="null where the store does not tell")
    memory_bytes: int | None


class CollectionsAnswer(BaseModel):
    collections: list[CollectionAnswer]


class ItemInput(AnyInput):
    """One item: a text, a file's bytes, or a vector that was made elsewhere in the same space."""

    WAYS: ClassVar[tuple[str, ...]] = (*MediaInput.WAYS, "vector")

    vector: Many[float] | None = None
    id: str | None = Field(None, description="replaces the item of that id; without one a new id is made")
    metadata: Metadata = Field(default_factory=dict)
    uri: str | None = Field(None, description="where the media is, for whoever reads the hits; never fetched")
    start: float | None = Field(None, ge=0, description="seconds; of audio and video only this part is embedded")
    end: float | None = Field(None, gt=0, description="seconds")


class ItemsBody(Strict):
    items: Many[ItemInput]


class StoredClip(BaseModel):
    id: str
    status: Literal["created", "updated", "failed"]
    error: ItemError | None = None


class StoredItem(BaseModel):
    index: int
    id: str | None
    status: Literal["created", "updated", "superseded", "failed"] = Field(
        description="superseded: a later item of the same request has the same id"
    )
    error: ItemError | None = None
    clips: list[StoredClip] | None = Field(None, description="what became of each clip, when the item was cut by `clip_seconds`")


class ItemsStored(BaseModel):
    items: list[StoredItem]
    usage: dict[str, float]


class ItemAnswer(BaseModel):
    id: str
    modality: str
    uri: str | None
    start: float | None
    end: float | None
    metadata: Metadata
    embedding: list[float] | None = None


class PageAnswer(BaseModel):
    items: list[ItemAnswer]
    cursor: str | None = Field(description="give it back for the next page; null at the end")


class PatchBody(Strict):
    metadata: Metadata = Field(description="merged into the item's; null removes a name (RFC 7396)")


class DeleteBody(Strict):
    ids: Many[str] | None = None
    filter: Filter | None = None

    @model_validator(mode="after")
    def _has_one(self) -> DeleteBody:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give ids or a filter, exactly one of them")
        return self


class DeleteAnswer(BaseModel):
    deleted: int


class MixPart(MediaInput):
    """One voice of a mixed query."""

    WAYS: ClassVar[tuple[str, ...]] = (*MediaInput.WAYS, "vector", "item")

    modality: str | None = None
    vector: Many[float] | None = None
    item: str | None = None
    weight: float = Field(1.0, allow_inf_nan=False, description="may be negative: away from it")


def _metadata() -> list[Literal["metadata", "embedding"]]:
    return ["metadata"]


class SearchBody(Strict):
    """A query by exactly one of text, data or url (with its modality), vector, item and mix."""

    text: Text | None = None
    data: Text | None = Field(None, description="a file's bytes: base64, or a data: URI; needs `modality`")
    url: str | None = Field(None, description="where the file lies, in place of data; refused unless the server was told to fetch URLs")
    vector: Many[float] | None = None
    item: str | None = Field(None, description="a stored item's id; it is not among its own hits")
    mix: Many[MixPart] | None = Field(None, min_length=1)
    options: dict[str, Any] | None = Field(None, description="options of the file's kind")
    modality: str | None = Field(None, description="with data or a file: what it is; otherwise: return only these")
    modalities: Many[str] | None = Field(None, min_length=1, description="return only these")
    top_k: int = 10
    filter: Filter | None = None
    group_by: str | None = Field(None, description="uri, modality or a declared field: only the best hit of each value")
    min_score: float | None = Field(None, allow_inf_nan=False)
    offset: int = 0
    include: Many[Literal["metadata", "embedding"]] = Field(default_factory=_metadata)
    exact: bool = Field(False, description="compare with every vector, whatever the index")
    centred: bool = Field(False, description="scores that compare between modalities: without what all vectors of a hit's modality share")


class HitAnswer(BaseModel):
    id: str
    score: float = Field(description="the cosine with the query; centred, when that was asked for")
    modality: str
    uri: str | None
    start: float | None
    end: float | None
    metadata: Metadata | None = None
    embedding: list[float] | None = None


class SearchAnswer(BaseModel):
    hits: list[HitAnswer]
    plan: dict[str, Any] = Field(description="how the search ran")
