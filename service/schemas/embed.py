"""Bodies of `/v1/embed/{modality}` and `/v1/classify/{modality}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, InstanceOf, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from bindery.vectors import Encoding
from service.attached import Attached

Text = Annotated[str | Annotated[Attached, InstanceOf()], WithJsonSchema({"type": "string"})]
"""A string that may be a whole file, and then has been written to disk already."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _UpToItsFirstFault:
    """As pydantic's `FailFast`, which cannot stand in a union: it has no hash."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast(CoreSchema, {**handler(source), "fail_fast": True})


Many = Annotated[list[T], _UpToItsFirstFault()]
"""A list of whatever length: judged up to its first fault, since telling of a hundred thousand keeps everybody waiting."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MediaInput(Strict):
    """One input; a plain string stands for ``{"text": string}``."""

    WAYS: ClassVar[tuple[str, ...]] = ("text", "data", "url")

    text: Text | None = Field(None, description="a text")
    data: Text | None = Field(None, description="the file's bytes: base64, or a data: URI")
    url: str | None = Field(None, description="where the file lies; refused unless the server was told to fetch URLs")
    name: str | None = Field(None, max_length=1024, description="shown in the answer and in messages")
    options: dict[str, Any] | None = Field(None, description="in place of the request's options")

    @property
    def sources(self) -> int:
        """How many of the members that can be the input are given."""
        return sum(getattr(self, way) is not None for way in self.WAYS)

    @property
    def size_chars(self) -> int:
        return sum(len(given) for given in (self.text, self.data) if isinstance(given, str))

    @model_validator(mode="before")
    @classmethod
    def _string_is_text(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str | Attached) else value

    @model_validator(mode="after")
    def _has_one_source(self) -> MediaInput:
        if self.sources != 1:
            raise ValueError(f"give exactly one of {', '.join(self.WAYS)}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler.resolve_ref_schema(handler(schema))]}


class Parameters(Strict):
    """What a request may say besides its inputs; as form fields, JSON members or (raw bodies) query parameters."""

    model: str | None = Field(None, description="a name of `GET /v1/models`; without one, the default model")
    on_error: Literal["partial", "fail"] = Field("partial", description="fail: all items or none")


class EmbedParameters(Parameters):
    encoding: Encoding = Field("float", description="base64: little-endian float32; int8: round(127 x); ubinary: one bit a value")
    dimensions: int | None = Field(None, gt=0, description="cut to so many values and normalised again")


class ClassifyParameters(Parameters):
    labels: Many[str] | None = Field(None, description="the words to weigh against each other")
    label_set: str | None = Field(None, description="a stored label set, in place of labels")
    template: Many[str] | None = Field(None, description="prompts with one {} for the label; default: the bundle's own")
    top_k: int | None = Field(None, gt=0, description="only the best so many labels")

    @model_validator(mode="before")
    @classmethod
    def _one_template_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("template"), str):
            return value | {"template": [value["template"]]}
        return value


class InputsBody(Parameters):
    inputs: Many[MediaInput] = Field(description="the items, answered in this order")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the modality's kind, see /v1/modalities")


class EmbedBody(InputsBody, EmbedParameters):
    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": ["a dog barking", "rain on a roof"]}]})


class ClassifyBody(InputsBody, ClassifyParameters):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": [{"data": "data:audio/wav;base64,UklGRg…"}], "labels": ["dog barking", "rain"]}]}
    )


class ItemError(BaseModel):
    code: str
    message: str


class EmbeddedClip(BaseModel):
    start: float = Field(description="seconds from the beginning of the file")
    end: float
    embedding: list[float] | list[int] | str | None = None
    error: ItemError | None = None


class EmbeddedItem(BaseModel):
    index: int
    name: str
    embedding: list[float] | list[int] | str | None = None
    clips: list[EmbeddedClip] | None = Field(None, description="in place of `embedding`, when `clip_seconds` was given")
    truncated: bool | None = Field(None, description="true when the text was longer than the tower reads")
    error: ItemError | None = None


class EmbedAnswer(BaseModel):
    model: str
    space: str
    modality: str
    dimension: int
    items: list[EmbeddedItem]
    usage: dict[str, float] = Field(description="what was counted: tokens, pixels, audio_seconds, video_frames, bytes")


class LabelScore(BaseModel):
    label: str
    probability: float
    similarity: float


class ClassifiedItem(BaseModel):
    index: int
    name: str
    labels: list[LabelScore] | None = None
    unknown: bool | None = Field(
        None, description="true when the best similarity is below the modality's `min_similarity`; only where the bundle states one"
    )
    error: ItemError | None = None


class ClassifyAnswer(BaseModel):
    model: str
    space: str
    modality: str
    items: list[ClassifiedItem]
    usage: dict[str, float]


def repeated(model: type[BaseModel]) -> frozenset[str]:
    """Fields of a model that a form may repeat: its lists."""
    return frozenset(name for name, field in model.model_fields.items() if _is_list(field.annotation))


def _is_list(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_list(get_args(annotation)[0])
    return get_origin(annotation) is list or any(_is_list(one) for one in getattr(annotation, "__args__", ()))
