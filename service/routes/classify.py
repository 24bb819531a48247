"""`POST /v1/classify/{modality}` and `/v1/label-sets`: files against words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from bindery.bundle import Modality
from bindery.collections import LabelSet
from bindery.engine.embedded import Embedded
from bindery.errors import InvalidParameter, StorageFull, TooManyItems, UnknownLabelSet
from bindery.limits import Limits
from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, probabilities
from service.answers import Json, Npy, accepted
from service.embedding import Outcome, embed_items, settle, total_usage
from service.exchange import exchange_of
from service.inputs import Item, read_inputs
from service.json_body import read_json
from service.openapi import FILES, OR_NPY, RAW, TEXTS, form_body, json_body, problems
from service.routes.failures import JSON_ERRORS, MEDIA_ERRORS, TAKING_WORK
from service.schemas.embed import ClassifyAnswer, ClassifyBody, ClassifyParameters
from service.schemas.labels import LabelSetAnswer, LabelSetBody, LabelSetsAnswer
from service.state import State, state_of

router = APIRouter(tags=["classification"])

FORM = form_body(
    {"file": FILES, "text": TEXTS, "labels": TEXTS, "label_set": {"type": "string"}, "template": TEXTS, "top_k": {"type": "integer"}}
)
EXAMPLE = {"inputs": [{"data": "data:audio/wav;base64,UklGRg…"}], "labels": ["dog barking", "rain"], "top_k": 1}


@router.post(
    "/v1/classify/{modality}",
    summary="Weigh labels against each file or text",
    responses={200: {"model": ClassifyAnswer, **OR_NPY}, **problems(UnknownLabelSet, *MEDIA_ERRORS)},
    openapi_extra=json_body(ClassifyBody, EXAMPLE, {"multipart/form-data": FORM, "application/octet-stream": RAW}),
)
async def classify(modality: str, request: Request) -> Response:
    """Zero-shot: the labels become texts, and each item's probabilities are a softmax over its similarities to them.

    `Accept: application/x-npy` gives the probabilities as an `(n, L)` float32 array, its columns in the order of the labels, when
    every item succeeded.
    """
    state, exchange, form = state_of(request), exchange_of(request), accepted(request)
    async with read_inputs(request, modality, ClassifyBody, ClassifyParameters) as inputs:
        engine, parameters = inputs.engine, inputs.parameters
        entry = engine.bundle.modality(modality)
        if form == "npy" and parameters.top_k is not None:
            raise InvalidParameter("an .npy has a column for each label; leave top_k out, or ask for JSON", pointer="/top_k")
        labels, templates = await _labels(state, parameters, entry.prompts)
        words = await state.label_vectors.of(engine, labels, templates, exchange.deadline(state.limits))
        outcomes = await embed_items(engine, inputs.items, exchange)
        settle(inputs.items, outcomes, "fail" if form == "npy" else parameters.on_error)
    if form == "npy":
        vectors = np.stack([one.vector for one in outcomes if isinstance(one, Embedded)])  # (n, d)
        return Npy(probabilities(vectors, words, entry.logit_scale or 1.0))
    best = _Best(labels, words, entry, parameters.top_k)
    return Json(
        {
            "model": engine.name,
            "space": engine.bundle.manifest.space,
            "modality": modality,
            "items": [best.row(index, item, outcome) for index, (item, outcome) in enumerate(zip(inputs.items, outcomes, strict=True))],
            "usage": total_usage(outcomes),
        }
    )


@router.get("/v1/label-sets", summary="List the stored label sets", responses={200: {"model": LabelSetsAnswer}, **problems(*TAKING_WORK)})
async def list_label_sets(request: Request) -> Response:
    found = await asyncio.to_thread(state_of(request).store.label_sets)
    return Json({"label_sets": [_rendered(one) for one in found]})


@router.put(
    "/v1/label-sets/{name}",
    summary="Store labels under a name",
    responses={200: {"model": LabelSetAnswer}, **problems(*JSON_ERRORS, TooManyItems, StorageFull)},
    openapi_extra=json_body(LabelSetBody, {"labels": ["dog barking", "rain"], "templates": ["the sound of {}"]}),
)
async def put_label_set(name: str, request: Request) -> Response:
    """Stored, or replaced; its vectors for the default model are computed at once, after the answer and behind other work."""
    state = state_of(request)
    store = state.store
    body = await read_json(request, LabelSetBody)
    _check(body.labels, body.templates or ["{}"], state.limits)
    label_set = LabelSet(name, tuple(body.labels), None if body.templates is None else tuple(body.templates))
    await asyncio.to_thread(store.put_label_set, label_set)
    entries = state.bundle.manifest.modalities.values()
    ways = {entry.prompts for entry in entries} if label_set.templates is None else {label_set.templates}
    state.label_vectors.begin(state.engine, label_set.labels, ways)
    return Json(_rendered(label_set))


@router.get(
    "/v1/label-sets/{name}",
    summary="Read a label set",
    responses={200: {"model": LabelSetAnswer}, **problems(UnknownLabelSet, *TAKING_WORK)},
)
async def get_label_set(name: str, request: Request) -> Response:
    return Json(_rendered(await asyncio.to_thread(state_of(request).store.label_set, name)))


@router.delete("/v1/label-sets/{name}", summary="Delete a label set", status_code=204, responses=problems(UnknownLabelSet, *TAKING_WORK))
async def delete_label_set(name: str, request: Request) -> Response:
    await asyncio.to_thread(state_of(request).store.delete_label_set, name)
    return Response(status_code=204)


async def _labels(state: State, parameters: ClassifyParameters, prompts: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The labels and templates that are meant: the request's own, the label set's, the bundle's, in this order."""
    if (parameters.labels is None) == (parameters.label_set is None):
        raise InvalidParameter("give labels or label_set, exactly one of them", pointer="/labels")
    if parameters.label_set is not None:
        stored = await asyncio.to_thread(state.store.label_set, parameters.label_set)
        labels, default = stored.labels, stored.templates or prompts
    else:
        labels, default = tuple(parameters.labels or ()), prompts
    templates = default if parameters.template is None else parameters.template
    _check(labels, templates, state.limits)
    return labels, templates


def _check(labels: Sequence[str], templates: Sequence[str], limits: Limits) -> None:
    if len(labels) > limits.labels:
        raise TooManyItems(f"{len(labels)} labels; at most {limits.labels} are taken (limit labels)", pointer="/labels")
    if len(templates) > limits.templates:
        raise TooManyItems(f"{len(templates)} templates; at most {limits.templates} are taken (limit templates)", pointer="/template")
    expand_labels(labels, templates)


class _Best:
    """Renders items as their labels, the likeliest first."""

    def __init__(self, labels: Sequence[str], words: Vectors, entry: Modality, top_k: int | None) -> None:
        self._labels, self._words, self._top_k = labels, words, top_k
        self._scale, self._least = entry.logit_scale or 1.0, entry.min_similarity

    def row(self, index: int, item: Item, outcome: Outcome) -> dict[str, Any]:
        row: dict[str, Any] = {"index": index, "name": item.name}
        if not isinstance(outcome, Embedded):
            return row | {"error": {"code": outcome.code, "message": outcome.detail}}
        chances = probabilities(outcome.vector[None], self._words, self._scale)[0]  # (1, L) -> (L,)
        cosines = self._words @ outcome.vector  # (L,)
        order = np.argsort(-chances, kind="stable")[: self._top_k]
        found = [{"label": self._labels[at], "probability": chances[at], "similarity": cosines[at]} for at in order]
        row["labels"] = found
        if self._least is not None:
            row["unknown"] = bool(cosines.max() < self._least)
        return row


def _rendered(label_set: LabelSet) -> dict[str, Any]:
    return {"name": label_set.name, "labels": label_set.labels, "templates": label_set.templates}
