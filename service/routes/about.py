"""`/v1/models`, `/v1/modalities`, `/v1/limits`: what is served, for people and machines."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery.bundle import Artefact, Parity
from bindery.engine.engine import Engine
from bindery.kinds import KINDS
from bindery.limits import Limits
from service.answers import Json
from service.embedding import check_model
from service.openapi import inlined, problems
from service.routes.failures import TAKING_WORK
from service.schemas.about import LimitsAnswer, ModalitiesAnswer, ModelAnswer, ModelsAnswer
from service.state import state_of

router = APIRouter(tags=["about"])

# Which limits bound one item of a kind, besides the bytes of its file.
_LIMITS_OF_KIND: dict[str, tuple[str, ...]] = {
    "text": ("items_text", "text_chars"),
    "image": ("items_media", "file_bytes", "pixels", "side_px"),
    "depth": ("items_media", "file_bytes", "pixels", "side_px"),
    "thermal": ("items_media", "file_bytes", "pixels", "side_px"),
    "audio": ("items_media", "file_bytes", "media_seconds", "audio_channels"),
    "video": ("items_media", "file_bytes", "media_seconds", "video_frames", "pixels", "side_px"),
}


@router.get(
    "/v1/models", summary="List the served models, OpenAI's way", responses={200: {"model": ModelsAnswer}, **problems(*TAKING_WORK)}
)
async def models(request: Request) -> Response:
    return Json({"object": "list", "data": [_model(state_of(request).engine)]})


@router.get("/v1/models/{name}", summary="Describe one model", responses={200: {"model": ModelAnswer}, **problems(*TAKING_WORK)})
async def model(name: str, request: Request) -> Response:
    engine = state_of(request).engine
    check_model(name, engine.bundle)
    return Json(_model(engine))


@router.get(
    "/v1/modalities",
    summary="List the modalities: kinds, types, options, limits",
    responses={200: {"model": ModalitiesAnswer}, **problems(*TAKING_WORK)},
)
async def modalities(request: Request) -> Response:
    engine = state_of(request).engine
    manifest = engine.bundle.manifest
    described = [_modality(name, entry.kind, engine.limits) for name, entry in manifest.modalities.items()]
    return Json({"model": manifest.name, "dimension": manifest.dimension, "space": manifest.space, "modalities": described})


@router.get("/v1/limits", summary="List every limit", responses={200: {"model": LimitsAnswer}})
async def limits(request: Request) -> Response:
    found = state_of(request).limits
    fields = Limits.model_fields.items()
    return Json({"limits": {name: {"value": getattr(found, name), "of": field.description} for name, field in fields}})


def _modality(name: str, kind_name: str, limits: Limits) -> dict[str, Any]:
    kind = KINDS[kind_name]
    return {
        "name": name,
        "kind": kind_name,
        "media_types": kind.media_types,
        "suffixes": kind.suffixes,
        "options": inlined(kind.options),
        "limits": {limit: getattr(limits, limit) for limit in _LIMITS_OF_KIND.get(kind_name, ())},
    }


def _model(engine: Engine) -> dict[str, Any]:
    manifest = engine.bundle.manifest
    towers = {name: _tower(engine, name) for name in manifest.modalities}
    return {
        "id": manifest.name,
        "object": "model",
        "created": 0,
        "owned_by": "bindery",
        "version": manifest.version,
        "licence": manifest.licence,
        "space": manifest.space,
        "dimension": manifest.dimension,
        "digest": engine.bundle.digest,
        "state": engine.state,
        "modalities": towers,
    }


def _tower(engine: Engine, name: str) -> dict[str, Any]:
    encoder, entry = engine.encoders[name], engine.bundle.modality(name)
    parity = _parity(entry.artefacts, encoder.precision)
    return {
        "kind": entry.kind,
        "precision": encoder.precision,
        "device": encoder.device,
        "runtime": encoder.runtime,
        "provider": encoder.provider,
        "max_batch": encoder.max_batch,
        "logit_scale": entry.logit_scale,
        "prompts": entry.prompts,
        "parity": None if parity is None else parity.model_dump(),
    }


def _parity(artefacts: tuple[Artefact, ...], precision: str) -> Parity | None:
    return next((one.parity for one in artefacts if one.precision == precision), None)
