"""`/livez`, `/readyz`, `/metrics`: for those who watch the service, not for those who use it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery.errors import Draining, EngineDown, Starting
from service.answers import Json
from service.openapi import problems
from service.state import state_of

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?", responses=problems(EngineDown))
async def livez(request: Request) -> Response:
    """200 as soon as the process runs; 503 only when the engine has failed for good, and a restart is the cure."""
    if state_of(request).failed:
        raise EngineDown("the engine has failed; restart the server and see its log", retry_after_ms=30_000)
    return Json({"status": "alive"})


@router.get("/readyz", summary="Does it take work?", responses=problems(Starting, Draining, EngineDown))
async def readyz(request: Request) -> Response:
    """200 while work is taken: every model is loaded, nothing hangs, and the canaries sing as they did at the start."""
    models = state_of(request).models
    if models.default.state == "draining":
        raise Draining("the server is shutting down", retry_after_ms=5000)
    trouble = models.trouble()
    if trouble is not None:
        raise EngineDown(trouble, retry_after_ms=5000)
    return Json({"status": "ready", "model": models.default.name})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(request: Request) -> Response:
    return Response(state_of(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
