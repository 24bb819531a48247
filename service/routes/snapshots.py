"""Snapshots of collections: taken while serving, listed, restored, deleted."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery import errors as e
from bindery.collections.snapshots import Snapshot
from service.answers import Json
from service.json_body import read_json
from service.openapi import json_body, problems
from service.routes.collections import find_collection, rendered
from service.routes.failures import JSON_ERRORS, TAKING_WORK
from service.schemas.collections import CollectionAnswer
from service.schemas.snapshots import RestoreBody, SnapshotAnswer, SnapshotsAnswer
from service.state import state_of

router = APIRouter(tags=["collections"])


@router.post(
    "/v1/collections/{c}/snapshot",
    summary="Take a snapshot of a collection",
    responses={200: {"model": SnapshotAnswer}, **problems(e.UnknownCollection, e.NotOffered, e.StorageFull, *TAKING_WORK)},
)
async def take_snapshot(c: str, request: Request) -> Response:
    """The collection as it is at this moment; reading and writing go on meanwhile."""
    state = state_of(request)
    await find_collection(state, c)
    return Json(_told(await asyncio.to_thread(state.store.snapshot, c)))


@router.post(
    "/v1/collections/{c}/restore",
    summary="Restore a snapshot into a collection",
    responses={
        200: {"model": CollectionAnswer},
        **problems(*JSON_ERRORS, e.UnknownSnapshot, e.SnapshotDamaged, e.NotOffered, e.AlreadyExists, e.StorageFull),
    },
    openapi_extra=json_body(RestoreBody, {"snapshot": "zoo-20260401-120000-3f0c2a"}),
)
async def restore_snapshot(c: str, request: Request) -> Response:
    """In place of all that the collection holds, in one step; it is made when it is missing."""
    store = state_of(request).store
    body = await read_json(request, RestoreBody)
    return Json(rendered(await asyncio.to_thread(lambda: store.restore(c, body.snapshot).state())))


@router.get("/v1/snapshots", summary="List the snapshots", responses={200: {"model": SnapshotsAnswer}, **problems(*TAKING_WORK)})
async def list_snapshots(request: Request) -> Response:
    return Json({"snapshots": [_told(one) for one in await asyncio.to_thread(state_of(request).store.snapshots)]})


@router.delete(
    "/v1/snapshots/{s}", summary="Delete a snapshot", status_code=204, responses=problems(e.UnknownSnapshot, e.NotOffered, *TAKING_WORK)
)
async def delete_snapshot(s: str, request: Request) -> Response:
    await asyncio.to_thread(state_of(request).store.delete_snapshot, s)
    return Response(status_code=204)


def _told(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot": snapshot.name,
        "collection": snapshot.definition.name,
        "items": snapshot.items,
        "bytes": snapshot.bytes,
        "created_at": snapshot.created_at,
    }
