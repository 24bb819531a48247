"""Items on their way into a collection: from a body, through the engine, to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from bindery.bundle import Bundle
from bindery.collections import Collection, ItemResult, new_item_id
from bindery.collections import Item as Stored
from bindery.engine.clips import EmbeddedClips
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, InvalidParameter
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.moments import Medium, store_media
from bindery.vectors import Vectors
from service.clips import embed_or_cut
from service.embedding import Outcome, total_usage
from service.exchange import Exchange
from service.inputs import Item, check_count, form_item, given_vector, item_of, modality_of, split_fields
from service.json_body import load
from service.multipart import FieldPart, FilePart, Part
from service.problems import Several, validated
from service.schemas.collections import ItemInput
from service.schemas.embed import Strict


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known about one item, and either its vector or the input that will give one."""

    modality: str
    source: Item | Vectors
    id: str | None
    metadata: Mapping[str, Any]
    uri: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Written:
    results: list[ItemResult]
    usage: dict[str, float]


class ItemsForm(Strict):
    """Fields of a form with items: one value for all of them, or one for each in their order."""

    modality: str = Field(min_length=1)
    id: list[str] = Field(default_factory=list)
    metadata: list[str] = Field(default_factory=list)
    uri: list[str] = Field(default_factory=list)


async def write(engine: Engine, collection: Collection, entries: Sequence[Entry], exchange: Exchange) -> Written:
    """Embed what needs it, store what succeeded: items in one commit, clips in another. Raises `Several` when nothing could be stored."""
    inputs = [entry.source for entry in entries if isinstance(entry.source, Item)]
    outcomes = await embed_or_cut(engine, inputs, exchange)
    waiting = iter(outcomes)
    made = [next(waiting) if isinstance(entry.source, Item) else entry.source for entry in entries]
    results = await asyncio.to_thread(_store, collection, engine.bundle, list(zip(entries, made, strict=True)))
    failed = [(f"/items/{index}", result.error) for index, result in enumerate(results) if result.error is not None]
    if len(failed) == len(results):
        raise Several(failed)
    return Written(results, total_usage(outcomes))


def json_entries(given: Sequence[ItemInput], bundle: Bundle, limits: Limits) -> list[Entry]:
    """Raises `InvalidParameter`, `UnknownModality`, `TooManyItems`."""
    entries = [_json_entry(one, bundle, limits, f"/items/{index}") for index, one in enumerate(given)]
    _check(entries, bundle, limits)
    return entries


def form_entries(parts: Sequence[Part], bundle: Bundle, limits: Limits) -> list[Entry]:
    """Raises `InvalidParameter`, `UnknownModality`, `TooManyItems`, `MalformedJson`."""
    inputs = [part for part in parts if part.field in ("file", "text")]
    fields = [(part.field, part.text) for part in parts if isinstance(part, FieldPart) and part.field != "text"]
    values, rest = split_fields(fields, ItemsForm)
    form = validated(ItemsForm, values)
    kind = bundle.modality(form.modality).kind
    time = {name: _seconds(name, str(rest[name])) for name in ("start", "end") if name in rest}
    options = parse_options(kind, _options(kind, rest))
    check_count(len(inputs), kind, limits, "/items")
    ids = _for_each("id", form.id, len(inputs), shared=False)
    for id in ids:
        _check_id(id, "/id")
    metadata = [{} if text is None else _object(text, limits) for text in _for_each("metadata", form.metadata, len(inputs))]
    uris = _for_each("uri", form.uri, len(inputs), shared=False)
    items = [form_item(part, f"/items/{index}", form.modality, kind, options, limits) for index, part in enumerate(inputs)]
    return [
        Entry(
            form.modality, item, id, facts, uri or (item.name if isinstance(part, FilePart) else None), time.get("start"), time.get("end")
        )
        for item, part, id, facts, uri in zip(items, inputs, ids, metadata, uris, strict=True)
    ]


def _json_entry(given: ItemInput, bundle: Bundle, limits: Limits, pointer: str) -> Entry:
    modality = modality_of(given, bundle, pointer)
    kind = bundle.modality(modality).kind
    if given.vector is not None:
        source: Item | Vectors = given_vector(given.vector, pointer)
    else:
        part = {name: value for name, value in (("start", given.start), ("end", given.end)) if value is not None}
        options = {**(given.options or {}), **_options(kind, part)}
        source = item_of(given.model_copy(update={"options": options}), modality, kind, None, limits, pointer)
    return Entry(modality, source, given.id, given.metadata, given.uri, given.start, given.end)


def _check(entries: Sequence[Entry], bundle: Bundle, limits: Limits) -> None:
    for index, entry in enumerate(entries):
        _check_id(entry.id, f"/items/{index}/id")
    cheap = all(not isinstance(entry.source, Item) or bundle.modality(entry.modality).kind == "text" for entry in entries)
    check_count(len(entries), "text" if cheap else "media", limits, "/items")


def _check_id(id: str | None, pointer: str) -> None:
    if id == "":  # a sender whose ids are missing would store everything again with each request
        raise InvalidParameter("id is empty; leave it out to get a new one", pointer=pointer)


def _options(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` without a start and end that this kind has no use for: of a depth map they are only noted."""
    known = KINDS[kind].options.model_fields
    return {name: value for name, value in given.items() if name in known or name not in ("start", "end")}


def _for_each(name: str, values: Sequence[str], count: int, *, shared: bool = True) -> list[str | None]:
    if not values:
        return [None] * count
    if len(values) == count:
        return list(values)
    if shared and len(values) == 1:
        return [values[0]] * count
    raise InvalidParameter(f"{name} is given {len(values)} times for {count} items; give it once for each", pointer=f"/{name}")


def _object(text: str, limits: Limits) -> dict[str, Any]:
    document = load(text, limits, "metadata")
    if not isinstance(document, dict):
        raise InvalidParameter("metadata must be a JSON object", pointer="/metadata")
    return document


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidParameter(f"{name} is {text[:40]!r}; it must be seconds", pointer=f"/{name}") from error


def _store(collection: Collection, bundle: Bundle, made: Sequence[tuple[Entry, Outcome | Vectors]]) -> list[ItemResult]:
    """All in two commits; where one id is both that of a medium with clips and that of another item, in the order that they have."""
    cut = {entry.id for entry, outcome in made if isinstance(outcome, EmbeddedClips)}
    if not any(entry.id in cut for entry, outcome in made if entry.id and not isinstance(outcome, EmbeddedClips)):
        return _store_together(collection, bundle, made)
    return [result for one in made for result in _store_together(collection, bundle, [one])]


def _store_together(collection: Collection, bundle: Bundle, made: Sequence[tuple[Entry, Outcome | Vectors]]) -> list[ItemResult]:
    media: dict[int, Medium] = {}
    items: dict[int, Stored] = {}
    replaced: list[str] = []
    for index, (entry, outcome) in enumerate(made):
        id = new_item_id() if entry.id is None else entry.id
        if isinstance(outcome, EmbeddedClips):
            media[index] = Medium(id, entry.modality, outcome.clips, entry.uri, entry.metadata)
        elif not isinstance(outcome, BinderyError):
            vector = outcome.vector if isinstance(outcome, Embedded) else outcome
            items[index] = Stored(id, entry.modality, vector, entry.uri, entry.start, entry.end, entry.metadata)
            if KINDS[bundle.modality(entry.modality).kind].measure is not None:
                replaced.append(id)  # may have been stored as clips before
    results = dict(zip(items, collection.upsert(list(items.values()), media=replaced) if items else (), strict=True))
    results |= dict(zip(media, store_media(collection, list(media.values())) if media else (), strict=True))
    return [
        ItemResult(entry.id or "", "failed", outcome) if isinstance(outcome, BinderyError) else results[index]
        for index, (entry, outcome) in enumerate(made)
    ]
