"""`POST /v1/similarity`: anything against anything, as cosines."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery.engine.embedded import Embedded
from service.answers import Json
from service.embedding import embed_items, settle, total_usage
from service.exchange import exchange_of
from service.inputs import any_items
from service.json_body import off_loop, read_json
from service.openapi import json_body, problems
from service.routes.failures import MEDIA_ERRORS
from service.schemas.similarity import EXAMPLE, SimilarityAnswer, SimilarityBody
from service.state import state_of

router = APIRouter(tags=["embedding"])


@router.post(
    "/v1/similarity",
    summary="Compare two lists of items of any modalities",
    responses={200: {"model": SimilarityAnswer}, **problems(*MEDIA_ERRORS)},
    openapi_extra=json_body(SimilarityBody, EXAMPLE),
)
async def similarity(request: Request) -> Response:
    """The `(n, m)` matrix of cosines. All or nothing: one bad item fails the request, and `errors` names it."""
    state, exchange = state_of(request), exchange_of(request)
    body = await read_json(request, SimilarityBody)
    engine = state.models.held(body.model, exchange)
    rows = await off_loop(exchange.bytes, any_items, body.left, engine.bundle, state.limits, "/left")
    columns = await off_loop(exchange.bytes, any_items, body.right, engine.bundle, state.limits, "/right")
    items = [*rows, *columns]
    outcomes = await embed_items(engine, items, exchange)
    settle(items, outcomes, "fail")
    vectors = np.stack([one.vector for one in outcomes if isinstance(one, Embedded)])
    return Json(
        {
            "model": engine.name,
            "space": engine.bundle.manifest.space,
            "similarity": vectors[: len(rows)] @ vectors[len(rows) :].T,
            "usage": total_usage(outcomes),
        }
    )
