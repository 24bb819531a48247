"""`/v1/collections`: create, describe, delete."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery import errors as e
from bindery.collections import Collection, CollectionState
from service.answers import Json
from service.json_body import read_json
from service.openapi import Responses, json_body, problems
from service.routes.failures import JSON_ERRORS, TAKING_WORK
from service.schemas.collections import CollectionAnswer, CollectionBody, CollectionsAnswer
from service.state import State, state_of

router = APIRouter(tags=["collections"])

ANSWER: Responses = {200: {"model": CollectionAnswer}}


@router.get("/v1/collections", summary="List the collections", responses={200: {"model": CollectionsAnswer}, **problems(*TAKING_WORK)})
async def list_collections(request: Request) -> Response:
    store = state_of(request).store
    states = await asyncio.to_thread(lambda: [collection.state() for collection in store.collections()])
    return Json({"collections": [rendered(one) for one in states]})


@router.put(
    "/v1/collections/{c}",
    summary="Create a collection",
    responses={
        **ANSWER,
        201: {"model": CollectionAnswer},
        **problems(*JSON_ERRORS, e.UnknownModel, e.AlreadyExists, e.TooManyItems, e.StorageFull),
    },
    openapi_extra=json_body(CollectionBody, {"fields": {"year": "integer", "place": "keyword"}}, required=False),
)
async def create_collection(c: str, request: Request) -> Response:
    """In the space of the named model, or the default one. 201 when it is new, 200 when it exists just so, 409 when it exists otherwise."""
    state = state_of(request)
    store = state.store
    body = await read_json(request, CollectionBody, empty=b"{}")
    if body.backend not in (None, store.backend):
        raise e.InvalidParameter(f"this server keeps collections in {store.backend}; BINDERY_STORE chooses", pointer="/backend")
    manifest = state.models.get(body.model).bundle.manifest

    def create() -> tuple[bool, CollectionState]:
        is_new = c not in store
        wanted = store.create(c, space=manifest.space, dimension=manifest.dimension, bundle=manifest.name, fields=body.fields)
        return is_new, wanted.state()

    is_new, created = await asyncio.to_thread(create)
    return Json(rendered(created), status_code=201 if is_new else 200)


@router.get("/v1/collections/{c}", summary="Describe a collection", responses={**ANSWER, **problems(e.UnknownCollection, *TAKING_WORK)})
async def get_collection(c: str, request: Request) -> Response:
    collection = await find_collection(state_of(request), c)
    return Json(rendered(await asyncio.to_thread(collection.state)))


@router.delete(
    "/v1/collections/{c}",
    summary="Delete a collection with all its items",
    status_code=204,
    responses=problems(e.UnknownCollection, *TAKING_WORK),
)
async def delete_collection(c: str, request: Request) -> Response:
    state = state_of(request)
    await find_collection(state, c)
    await asyncio.to_thread(state.store.delete, c)
    return Response(status_code=204)


async def find_collection(state: State, name: str) -> Collection:
    """Raises `UnknownCollection`, without the directory that the store's own message names."""
    try:
        return await asyncio.to_thread(state.store.get, name)
    except e.UnknownCollection as error:
        raise e.UnknownCollection(f"there is no collection {name[:80]!r}; PUT /v1/collections/NAME creates one") from error


def rendered(state: CollectionState) -> dict[str, Any]:
    return state.definition.document() | {
        "metric": "cosine",
        "backend": state.backend,
        "items": state.items,
        "counts": dict(state.counts),
        "tier": state.index,
        "recall": state.recall,
        "partitions": {
            modality: {
                "rows": one.rows,
                "tier": one.tier,
                "segments": one.segments,
                "recall": dict(one.recall),
                "disk_bytes": one.disk_bytes,
                "memory_bytes": one.memory_bytes,
            }
            for modality, one in state.partitions.items()
        },
        "disk_bytes": state.disk_bytes,
        "memory_bytes": state.memory_bytes,
    }
