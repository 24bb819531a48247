"""`/v1/aliases`: other names of collections, flipped in one step."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery import errors as e
from service.answers import Json
from service.json_body import read_json
from service.openapi import json_body, problems
from service.routes.failures import JSON_ERRORS, TAKING_WORK
from service.schemas.aliases import AliasAnswer, AliasBody, AliasesAnswer
from service.state import state_of

router = APIRouter(tags=["collections"])


@router.get("/v1/aliases", summary="List the aliases", responses={200: {"model": AliasesAnswer}, **problems(*TAKING_WORK)})
async def list_aliases(request: Request) -> Response:
    aliases = await asyncio.to_thread(state_of(request).store.aliases)
    return Json({"aliases": [{"name": name, "collection": collection} for name, collection in aliases.items()]})


@router.put(
    "/v1/aliases/{a}",
    summary="Let a name stand for a collection",
    responses={200: {"model": AliasAnswer}, **problems(*JSON_ERRORS, e.UnknownCollection, e.AlreadyExists, e.StorageFull)},
    openapi_extra=json_body(AliasBody, {"collection": "archive-2"}),
)
async def put_alias(a: str, request: Request) -> Response:
    """Build a collection beside the one in use, then flip the alias; flip it back to undo. Usable wherever a collection's name is."""
    store = state_of(request).store
    body = await read_json(request, AliasBody)
    await asyncio.to_thread(store.put_alias, a, body.collection)
    return Json({"name": a, "collection": body.collection})


@router.delete("/v1/aliases/{a}", summary="Delete an alias", status_code=204, responses=problems(e.UnknownAlias, *TAKING_WORK))
async def delete_alias(a: str, request: Request) -> Response:
    """Its collection stays."""
    await asyncio.to_thread(state_of(request).store.delete_alias, a)
    return Response(status_code=204)
