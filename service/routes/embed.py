"""`POST /v1/embed/{modality}`: files or texts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery.clips import Clip
from bindery.engine.clips import EmbeddedClips
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, InvalidParameter
from bindery.spec import PartOptions
from bindery.vectors import cut
from service.answers import Json, Npy, accepted, on_the_wire
from service.clips import embed_or_cut, takes_clips
from service.embedding import Outcome, settle, total_usage
from service.exchange import exchange_of
from service.inputs import Item, read_inputs
from service.openapi import FILES, OR_NPY, RAW, TEXTS, form_body, json_body, problems
from service.routes.failures import MEDIA_ERRORS
from service.schemas.embed import EmbedAnswer, EmbedBody, EmbedParameters

router = APIRouter(tags=["embedding"])

FORM = form_body(
    {"file": FILES, "text": TEXTS, "encoding": {"type": "string"}, "dimensions": {"type": "integer"}, "on_error": {"type": "string"}}
)


@router.post(
    "/v1/embed/{modality}",
    summary="Embed files or texts of one modality",
    responses={200: {"model": EmbedAnswer, **OR_NPY}, **problems(*MEDIA_ERRORS)},
    openapi_extra=json_body(
        EmbedBody, {"inputs": ["a dog barking", "rain on a roof"]}, {"multipart/form-data": FORM, "application/octet-stream": RAW}
    ),
)
async def embed(modality: str, request: Request) -> Response:
    """Multipart with `file` or `text` parts, JSON, or one file as the body itself. One vector an item, in order.

    With several items the answer is 200 when at least one succeeded, and each item carries its vector or its error.
    A video or a sound with `clip_seconds` (and `clip_stride`) answers with its `clips`; with `pool=mean` also their mean.
    `Accept: application/x-npy` gives an `(n, d)` float32 array, when every item succeeded.
    """
    exchange, form = exchange_of(request), accepted(request)
    async with read_inputs(request, modality, EmbedBody, EmbedParameters) as inputs:
        engine, parameters = inputs.engine, inputs.parameters
        width = cut(np.zeros(engine.bundle.manifest.dimension, np.float32), parameters.dimensions).shape[0]
        if form == "npy":
            _check_rows(inputs.items)
        outcomes = await embed_or_cut(engine, inputs.items, exchange)
        settle(inputs.items, outcomes, "fail" if form == "npy" else parameters.on_error)
    if form == "npy":
        return Npy(np.stack([cut(one.vector, parameters.dimensions) for one in outcomes if isinstance(one, Embedded)]))
    return Json(_answer(engine, modality, width, inputs.items, outcomes, parameters))


def _answer(
    engine: Engine, modality: str, width: int, items: Sequence[Item], outcomes: Sequence[Outcome], parameters: EmbedParameters
) -> dict[str, Any]:
    rows = [_row(index, item, outcome, parameters) for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True))]
    return {
        "model": engine.name,
        "space": engine.bundle.manifest.space,
        "modality": modality,
        "dimension": width,
        "items": rows,
        "usage": total_usage(outcomes),
    }


def _row(index: int, item: Item, outcome: Outcome, parameters: EmbedParameters) -> dict[str, Any]:
    row: dict[str, Any] = {"index": index, "name": item.name}
    if isinstance(outcome, BinderyError):
        return row | {"error": {"code": outcome.code, "message": outcome.detail}}
    if isinstance(outcome, EmbeddedClips):
        row["clips"] = [_clip(clip, parameters) for clip in outcome.clips]
    if not isinstance(outcome, EmbeddedClips) or outcome.pool == "mean":
        row["embedding"] = on_the_wire(cut(outcome.vector, parameters.dimensions), parameters.encoding)
    return row | {"truncated": True} if outcome.truncated else row


def _clip(clip: Clip, parameters: EmbedParameters) -> dict[str, Any]:
    row: dict[str, Any] = {"start": clip.window.start, "end": clip.window.end}
    if isinstance(clip.vector, BinderyError):
        return row | {"error": {"code": clip.vector.code, "message": clip.vector.detail}}
    return row | {"embedding": on_the_wire(cut(clip.vector, parameters.dimensions), parameters.encoding)}


def _check_rows(items: Sequence[Item]) -> None:
    """An array has one row an item."""
    for item in items:
        if takes_clips(item) and isinstance(item.options, PartOptions) and item.options.pool == "none":
            raise InvalidParameter("an .npy has one row an item: with clip_seconds ask for pool=mean, or for JSON", pointer="/options/pool")
