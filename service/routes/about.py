"""`/v1/modalities`, `/v1/limits`: what is served, for people and machines."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bindery.errors import UnknownModel
from bindery.kinds import KINDS
from bindery.limits import Limits
from service.answers import Json
from service.openapi import inlined, problems
from service.routes.failures import TAKING_WORK
from service.schemas.about import LimitsAnswer, ModalitiesAnswer
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
    "/v1/modalities",
    summary="List the modalities: kinds, types, options, limits",
    responses={200: {"model": ModalitiesAnswer}, **problems(UnknownModel, *TAKING_WORK)},
)
async def modalities(
    request: Request, model: str | None = Query(None, description="of which model; without it, the default one")
) -> Response:
    engine = state_of(request).models.get(model)
    manifest = engine.bundle.manifest
    described = [_modality(name, entry.kind, engine.limits) for name, entry in manifest.modalities.items()]
    return Json({"model": engine.name, "dimension": manifest.dimension, "space": manifest.space, "modalities": described})


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
