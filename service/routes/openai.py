"""`POST /v1/embeddings`: OpenAI's contract, for clients that know no other."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery.engine.embedded import Embedded
from bindery.vectors import cut
from service.answers import Json, on_the_wire
from service.embedding import embed_items, settle, total_usage
from service.exchange import exchange_of
from service.json_body import off_loop, read_json
from service.openai_inputs import openai_items
from service.openapi import json_body, problems
from service.routes.failures import MEDIA_ERRORS
from service.schemas.openai import EXAMPLE, EmbeddingsAnswer, EmbeddingsBody
from service.state import state_of

router = APIRouter(tags=["embedding"])


@router.post(
    "/v1/embeddings",
    summary="Embed texts and media, OpenAI's way",
    responses={200: {"model": EmbeddingsAnswer}, **problems(*MEDIA_ERRORS)},
    openapi_extra=json_body(EmbeddingsBody, EXAMPLE),
)
async def embeddings(request: Request) -> Response:
    """One embedding for each entry of `input`. It is all or nothing: one bad entry fails the request, and `errors` names it."""
    state, exchange = state_of(request), exchange_of(request)
    body = await read_json(request, EmbeddingsBody)
    engine = state.models.held(body.model, exchange)
    cut(np.zeros(engine.bundle.manifest.dimension, np.float32), body.dimensions)
    items = await off_loop(exchange.bytes, openai_items, body.input, engine.bundle, state.limits)
    outcomes = await embed_items(engine, items, exchange)
    settle(items, outcomes, "fail")
    tokens = int(total_usage(outcomes).get("tokens", 0))
    rows = [cut(one.vector, body.dimensions) for one in outcomes if isinstance(one, Embedded)]
    return Json(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": on_the_wire(row, body.encoding_format)}
                for index, row in enumerate(rows)
            ],
            "model": engine.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
