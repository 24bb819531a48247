"""`/v1/models`: what is served, and by whom may be changed what is."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery import errors as e
from bindery.engine.engine import Engine
from service.answers import Json
from service.json_body import read_json
from service.openapi import json_body, problems
from service.routes.failures import JSON_ERRORS, TAKING_WORK
from service.schemas.about import ModelAnswer, ModelBody, ModelsAnswer
from service.state import state_of

router = APIRouter(tags=["models"])

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@router.get(
    "/v1/models", summary="List the served models, OpenAI's way", responses={200: {"model": ModelsAnswer}, **problems(*TAKING_WORK)}
)
async def list_models(request: Request) -> Response:
    models = state_of(request).models
    return Json({"object": "list", "data": [_model(engine, models.default) for engine in models.engines]})


@router.get(
    "/v1/models/{name}",
    summary="Describe one model",
    responses={200: {"model": ModelAnswer}, **problems(e.UnknownModel, *TAKING_WORK)},
)
async def get_model(name: str, request: Request) -> Response:
    models = state_of(request).models
    return Json(_model(models.get(name), models.default))


@router.put(
    "/v1/models/{name}",
    summary="Load a bundle under a name, or swap what has it",
    responses={
        200: {"model": ModelAnswer},
        201: {"model": ModelAnswer},
        **problems(*JSON_ERRORS, e.ModelNotLoaded, e.ModelsFull, *TAKING_WORK),
    },
    openapi_extra=json_body(ModelBody, {"bundle": "starter", "default": False}, required=False),
)
async def put_model(name: str, request: Request) -> Response:
    """Loaded, run once and checked beside what serves; then the name is switched in one step, and requests that began on the old one
    finish there. 201 when the name is new. A load that fails changes nothing and says why."""
    models = state_of(request).models
    if not _NAME.fullmatch(name):
        raise e.InvalidParameter("a model's name has up to 63 letters, digits, dots, dashes and underscores", pointer="/name")
    body = await read_json(request, ModelBody, empty=b"{}")
    directory = models.local_bundle(body.bundle, name)
    policy = models.policy(body.device, body.precision)
    engine, is_new = await models.load(name, directory, policy, default=body.default)
    return Json(_model(engine, models.default), status_code=201 if is_new else 200)


@router.delete(
    "/v1/models/{name}",
    summary="Unload a model",
    status_code=204,
    responses=problems(e.UnknownModel, e.DefaultModel, *TAKING_WORK),
)
async def delete_model(name: str, request: Request) -> Response:
    """Nothing new is sent to it from now on; requests that it works on are answered, then its memory is freed."""
    await state_of(request).models.unload(name)
    return Response(status_code=204)


def _model(engine: Engine, default: Engine) -> dict[str, Any]:
    manifest = engine.bundle.manifest
    return {
        "id": engine.name,
        "object": "model",
        "created": 0,
        "owned_by": "bindery",
        "bundle": manifest.name,
        "default": engine is default,
        "version": manifest.version,
        "licence": manifest.licence,
        "space": manifest.space,
        "dimension": manifest.dimension,
        "digest": engine.bundle.digest,
        "state": engine.state,
        "modalities": {name: _tower(engine, name) for name in engine.encoders},
    }


def _tower(engine: Engine, name: str) -> dict[str, Any]:
    encoder, entry = engine.encoders[name], engine.bundle.modality(name)
    artefact = entry.artefact(encoder.precision)
    return {
        "kind": entry.kind,
        "precision": encoder.precision,
        "device": encoder.device,
        "runtime": encoder.runtime,
        "provider": encoder.provider,
        "max_batch": encoder.max_batch,
        "tuning": asdict(engine.tuning(name)),
        "logit_scale": entry.logit_scale,
        "min_similarity": entry.min_similarity,
        "prompts": entry.prompts,
        "parity": None if artefact is None else artefact.parity.model_dump(),
    }
