"""`/v1/collections/{c}/items`: put in, look at, change, take out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bindery import errors as e
from bindery.collections import Item
from service.answers import Json
from service.exchange import exchange_of
from service.indexing import Entry, Written, form_entries, json_entries, write
from service.json_body import load, media_type, off_loop, read_json
from service.multipart import read_form
from service.openapi import FILES, TEXTS, form_body, json_body, problems
from service.routes.collections import find_collection
from service.routes.failures import JSON_ERRORS, MEDIA_ERRORS, TAKING_WORK
from service.schemas.collections import DeleteAnswer, DeleteBody, ItemAnswer, ItemsBody, ItemsStored, PageAnswer, PatchBody
from service.state import state_of

router = APIRouter(tags=["collections"])

PAGE_ITEMS = 100

FORM = form_body(
    {
        "file": FILES,
        "text": TEXTS,
        "modality": {"type": "string"},
        "id": TEXTS,
        "metadata": {**TEXTS, "description": "JSON objects"},
        "uri": TEXTS,
    }
)
EXAMPLE = {"items": [{"id": "rex", "modality": "audio", "data": "data:audio/wav;base64,UklGRg…", "metadata": {"year": 2024}}]}
ONE = problems(e.UnknownCollection, e.UnknownItem, *TAKING_WORK)


@router.post(
    "/v1/collections/{c}/items",
    summary="Embed and store items",
    responses={
        200: {"model": ItemsStored},
        **problems(e.UnknownCollection, e.SpaceMismatch, e.DimensionMismatch, e.StorageFull, *MEDIA_ERRORS),
    },
    openapi_extra=json_body(ItemsBody, EXAMPLE, {"multipart/form-data": FORM}),
)
async def add_items(c: str, request: Request) -> Response:
    """An item of a known id replaces it. A video or a sound with `clip_seconds` becomes an item for each of its clips.

    200 once what succeeded is on the disk; each item carries what became of it.
    """
    state, exchange = state_of(request), exchange_of(request)
    collection = await find_collection(state, c)
    engine = state.models.of_space(collection.definition, exchange)
    if media_type(request) == "multipart/form-data":
        async with read_form(request) as parts:
            entries = await asyncio.to_thread(form_entries, parts, engine.bundle, state.limits)
            written = await write(engine, collection, entries, exchange)
    else:
        body = await read_json(request, ItemsBody)
        entries = await off_loop(exchange.bytes, json_entries, body.items, engine.bundle, state.limits)
        written = await write(engine, collection, entries, exchange)
    return Json(_stored(entries, written))


@router.get(
    "/v1/collections/{c}/items",
    summary="List items, oldest first",
    responses={200: {"model": PageAnswer}, **problems(e.UnknownCollection, e.InvalidFilter, e.InvalidParameter, *TAKING_WORK)},
)
async def list_items(
    c: str,
    request: Request,
    limit: int | None = Query(None, description="items of the page; default 100, or less where the server allows less"),
    cursor: str | None = None,
    filter: str | None = Query(None, description="the filter as JSON"),
    include: str | None = Query(None, description="`embedding` shows the vectors too"),
) -> Response:
    state = state_of(request)
    collection = await find_collection(state, c)
    count = min(PAGE_ITEMS, state.limits.page_items) if limit is None else limit
    condition = None if filter is None else load(filter, state.limits, "filter")
    page = await asyncio.to_thread(collection.page, count, cursor, condition)
    return Json({"items": [_item(one, include == "embedding") for one in page.items], "cursor": page.cursor})


@router.post(
    "/v1/collections/{c}/items/delete",
    summary="Delete items by ids or by a filter",
    responses={200: {"model": DeleteAnswer}, **problems(e.UnknownCollection, e.InvalidFilter, *JSON_ERRORS)},
    openapi_extra=json_body(DeleteBody, {"filter": {"year": {"lt": 2020}}}),
)
async def delete_items(c: str, request: Request) -> Response:
    """Ids that do not exist are no error; the answer says how many items went away."""
    collection = await find_collection(state_of(request), c)
    body = await read_json(request, DeleteBody)
    return Json({"deleted": await asyncio.to_thread(lambda: collection.delete(ids=body.ids, filter=body.filter))})


# Ids may hold slashes (paths of files often are ids), so these match to the end of the address.
@router.get("/v1/collections/{c}/items/{id:path}", summary="Read an item", responses={200: {"model": ItemAnswer}, **ONE})
async def get_item(c: str, id: str, request: Request) -> Response:
    collection = await find_collection(state_of(request), c)
    return Json(_item(await asyncio.to_thread(collection.get, id), True))


@router.patch(
    "/v1/collections/{c}/items/{id:path}",
    summary="Change an item's metadata",
    responses={200: {"model": ItemAnswer}, **problems(e.UnknownCollection, e.UnknownItem, *JSON_ERRORS)},
    openapi_extra=json_body(PatchBody, {"metadata": {"year": 2025, "note": None}}),
)
async def patch_item(c: str, id: str, request: Request) -> Response:
    collection = await find_collection(state_of(request), c)
    body = await read_json(request, PatchBody)
    return Json(_item(await asyncio.to_thread(collection.patch, id, body.metadata), False))


@router.delete("/v1/collections/{c}/items/{id:path}", summary="Delete an item", status_code=204, responses=ONE)
async def delete_item(c: str, id: str, request: Request) -> Response:
    collection = await find_collection(state_of(request), c)
    if not await asyncio.to_thread(lambda: collection.delete(ids=[id])):
        raise e.UnknownItem(f"collection {c!r} has no item {id[:200]!r}")
    return Response(status_code=204)


def _stored(entries: Sequence[Entry], written: Written) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for index, (entry, result) in enumerate(zip(entries, written.results, strict=True)):
        row: dict[str, Any] = {"index": index, "id": entry.id if result.error else result.id, "status": result.status}
        if result.error is not None:
            row["error"] = _error(result.error)
        if result.clips:
            row["clips"] = [
                {"id": clip.id, "status": clip.status} | ({} if clip.error is None else {"error": _error(clip.error)})
                for clip in result.clips
            ]
        rows.append(row)
    return {"items": rows, "usage": written.usage}


def _error(error: e.BinderyError) -> dict[str, str]:
    return {"code": error.code, "message": error.detail}


def _item(item: Item, with_embedding: bool) -> dict[str, Any]:
    row = {
        "id": item.id,
        "modality": item.modality,
        "uri": item.uri,
        "start": item.start,
        "end": item.end,
        "metadata": dict(item.metadata),
    }
    return row | {"embedding": item.vector} if with_embedding else row
