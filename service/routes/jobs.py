"""`/v1/jobs`: index a whole source, watch, pause, resume, cancel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Header, Request
from starlette.responses import Response, StreamingResponse

from bindery import errors as e
from bindery.jobs.ledger import ENDED, Job, Ledger
from bindery.jobs.report import report_of
from bindery.jobs.spec import JobSpec
from service.answers import Json
from service.json_body import read_json
from service.openapi import Responses, json_body, problems
from service.routes.failures import JSON_ERRORS, TAKING_WORK
from service.schemas.jobs import JobAnswer, JobsAnswer
from service.state import State, state_of

router = APIRouter(tags=["jobs"])

ANSWER: Responses = {200: {"model": JobAnswer}}
CHANGING = {**ANSWER, **problems(e.UnknownJob, e.JobState, *TAKING_WORK)}
EXAMPLE = {"source": "/srv/media", "collection": "archive", "rules": {"depth/**": "depth"}}

_LOOK_S = 0.5
_QUIET_S = 15.0  # proxies cut a stream that says nothing


@router.post(
    "/v1/jobs",
    summary="Index a source",
    status_code=201,
    responses={
        201: {"model": JobAnswer},
        **problems(*JSON_ERRORS, e.SourceNotAllowed, e.UnknownModality, e.SpaceMismatch, e.AlreadyExists, e.StorageFull, *TAKING_WORK),
    },
    openapi_extra=json_body(JobSpec, EXAMPLE),
)
async def add_job(request: Request) -> Response:
    """A folder, a manifest, a tar or an object store prefix, below what the server's operator allows (`BINDERY_JOB_ROOTS`).

    Live requests go first. A job survives a restart of the server.
    """
    state = state_of(request)
    spec = await read_json(request, JobSpec)
    job = await state.jobs.add(spec)
    return Json(await _told(state, job), status_code=201)


@router.get("/v1/jobs", summary="List the jobs", responses={200: {"model": JobsAnswer}, **problems(*TAKING_WORK)})
async def list_jobs(request: Request) -> Response:
    """The newest first; also those of `bindery index` on the same data directory."""
    state = state_of(request)
    jobs = await asyncio.to_thread(state.jobs.ledger.jobs)
    return Json({"jobs": [await _told(state, job) for job in jobs]})


@router.get("/v1/jobs/{id}", summary="Describe a job", responses={**ANSWER, **problems(e.UnknownJob, *TAKING_WORK)})
async def get_job(id: str, request: Request) -> Response:
    state = state_of(request)
    return Json(await _told(state, await asyncio.to_thread(state.jobs.ledger.job, id)))


@router.post("/v1/jobs/{id}/pause", summary="Pause a job", responses=CHANGING)
async def pause_job(id: str, request: Request) -> Response:
    state = state_of(request)
    return Json(await _told(state, await state.jobs.pause(id)))


@router.post("/v1/jobs/{id}/resume", summary="Go on with a paused job", responses={**CHANGING, **problems(e.SourceNotAllowed)})
async def resume_job(id: str, request: Request) -> Response:
    """It looks through its source again, and does what is new, changed or not yet done."""
    state = state_of(request)
    return Json(await _told(state, await state.jobs.resume(id)))


@router.post("/v1/jobs/{id}/cancel", summary="Cancel a job", responses=CHANGING)
async def cancel_job(id: str, request: Request) -> Response:
    """What it has indexed stays in the collection."""
    state = state_of(request)
    return Json(await _told(state, await state.jobs.cancel(id)))


@router.get(
    "/v1/jobs/{id}/events",
    summary="Follow a job",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "server-sent events, numbered"},
        **problems(e.UnknownJob, e.InvalidParameter, *TAKING_WORK),
    },
)
async def follow_job(id: str, request: Request, last_event_id: int = Header(0, ge=0, le=2**53)) -> Response:
    """Events `state` and `progress` until the job ends or pauses. With `Last-Event-ID`: those after it."""
    ledger = state_of(request).jobs.ledger
    await asyncio.to_thread(ledger.job, id)
    return StreamingResponse(_events(ledger, id, last_event_id), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(ledger: Ledger, id: str, after: int) -> AsyncIterator[str]:
    spoken = time.monotonic()
    while True:
        state = (await asyncio.to_thread(ledger.job, id)).state  # before the events: none of an ended job may be missed
        for seq, kind, data in await asyncio.to_thread(ledger.events, id, after):
            yield f"id: {seq}\nevent: {kind}\ndata: {data}\n\n"
            after, spoken = seq, time.monotonic()
        if state in (*ENDED, "paused"):
            return
        if time.monotonic() - spoken > _QUIET_S:
            yield ": still there\n\n"
            spoken = time.monotonic()
        await asyncio.sleep(_LOOK_S)


async def _told(state: State, job: Job) -> dict[str, Any]:
    report = await asyncio.to_thread(report_of, state.jobs.ledger, job)
    told = {name: value for name, value in asdict(report).items() if name not in ("job", "source", "collection")}
    return {"id": job.id, "spec": job.spec.model_dump(), **told, "created_at": job.created_at, "updated_at": job.updated_at}
