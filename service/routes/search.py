"""`POST /v1/collections/{c}/search`: words, a file, a vector, a stored item or a mix of them in; hits out."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery import errors as e
from bindery.collections import Hit
from service.answers import Json
from service.exchange import exchange_of
from service.json_body import media_type, off_loop, read_json
from service.multipart import read_form
from service.openapi import form_body, inlined, json_body, problems
from service.routes.collections import find_collection
from service.routes.failures import MEDIA_ERRORS
from service.schemas.collections import SearchAnswer, SearchBody
from service.searching import form_question, json_question, search
from service.state import state_of

router = APIRouter(tags=["search"])

FORM = form_body({"file": {"type": "string", "format": "binary"}, **inlined(SearchBody)["properties"]})


@router.post(
    "/v1/collections/{c}/search",
    summary="Search a collection",
    responses={
        200: {"model": SearchAnswer},
        **problems(e.UnknownCollection, e.UnknownItem, e.SpaceMismatch, e.DimensionMismatch, e.InvalidFilter, *MEDIA_ERRORS),
    },
    openapi_extra=json_body(SearchBody, {"text": "a dog barking", "top_k": 5, "modality": "audio"}, {"multipart/form-data": FORM}),
)
async def search_collection(c: str, request: Request) -> Response:
    """Best hits first. With a file, `modality` says what the file is; `modalities` says which items to return."""
    state, exchange = state_of(request), exchange_of(request)
    collection = await find_collection(state, c)
    engine = state.models.of_space(collection.definition, exchange)
    if media_type(request) == "multipart/form-data":
        async with read_form(request) as parts:
            question = await asyncio.to_thread(form_question, parts, engine.bundle, state.limits)
            result = await search(engine, collection, question, exchange)
    else:
        body = await read_json(request, SearchBody)
        question = await off_loop(exchange.bytes, json_question, body, engine.bundle, state.limits)
        result = await search(engine, collection, question, exchange)
    return Json({"hits": [_hit(hit, question.body.include) for hit in result.hits], "plan": result.plan})


def _hit(hit: Hit, include: list[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": hit.id,
        "score": hit.score,
        "modality": hit.modality,
        "uri": hit.uri,
        "start": hit.start,
        "end": hit.end,
    }
    if "metadata" in include:
        row["metadata"] = dict(hit.metadata)
    if hit.embedding is not None:
        row["embedding"] = hit.embedding
    return row
