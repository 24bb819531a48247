"""A search: what is asked with becomes one vector, and the collection does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bindery.bundle import Bundle
from bindery.collections import Collection, Query, SearchResult
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine
from bindery.errors import InvalidParameter
from bindery.kinds import parse_options
from bindery.limits import Limits
from bindery.search import blend
from bindery.vectors import Vectors
from service.embedding import embed_items, settle
from service.exchange import Exchange
from service.inputs import Item, form_item, given_vector, item_of, modality_of, split_fields
from service.json_body import load
from service.multipart import FieldPart, FilePart, Part
from service.problems import validated
from service.schemas.collections import MixPart, SearchBody
from service.schemas.similarity import AnyInput

JSON_FIELDS = ("filter", "mix", "vector")  # in a form, these hold JSON
WAYS = ("text", "data", "url", "vector", "item", "mix")


@dataclass(frozen=True, slots=True)
class Voice:
    """One part of what is asked with: an input to embed, a stored item's id, or a vector."""

    source: Item | str | Vectors
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    voices: list[Voice]
    modalities: tuple[str, ...] | None
    body: SearchBody


def json_question(body: SearchBody, bundle: Bundle, limits: Limits) -> Question:
    """Raises `InvalidParameter`, `UnknownModality`."""
    given = [way for way in WAYS if getattr(body, way) is not None]
    if len(given) != 1:
        raise InvalidParameter(f"a search takes one of {', '.join(WAYS)} or a file; given: {', '.join(given) or 'none'}")
    is_file = body.data is not None or body.url is not None
    if body.mix is not None:
        if len(body.mix) > limits.mix_parts:
            raise InvalidParameter(
                f"the mix has {len(body.mix)} parts; at most {limits.mix_parts} are taken (limit mix_parts)", pointer="/mix"
            )
        voices = [_voice(part, bundle, limits, f"/mix/{index}") for index, part in enumerate(body.mix)]
    else:
        of_file = body.modality if is_file else None
        part = MixPart(
            text=body.text, data=body.data, url=body.url, vector=body.vector, item=body.item, modality=of_file, options=body.options
        )
        voices = [_voice(part, bundle, limits, "")]
    return Question(voices, _wanted(body, is_file, bundle), body)


def form_question(parts: Sequence[Part], bundle: Bundle, limits: Limits) -> Question:
    """A form is the same question, its lists and objects written as JSON, with or without a file part."""
    files = [part for part in parts if isinstance(part, FilePart)]
    values, options = split_fields([(part.field, part.text) for part in parts if isinstance(part, FieldPart)], SearchBody)
    for name in JSON_FIELDS:
        if name in values:
            text = values[name]
            values[name] = load(text[0] if isinstance(text, list) else text, limits, name)
    body = validated(SearchBody, values | ({"options": options} if options else {}))
    if not files:
        return json_question(body, bundle, limits)
    if len(files) > 1 or files[0].field != "file" or any(getattr(body, way) is not None for way in WAYS):
        raise InvalidParameter("a search takes one file part named 'file', and then no other way to ask", pointer="/file")
    if body.modality is None:
        raise InvalidParameter(f"a file needs its modality, one of {', '.join(bundle.manifest.modalities)}", pointer="/modality")
    kind = bundle.modality(body.modality).kind
    item = form_item(files[0], "/file", body.modality, kind, parse_options(kind, body.options or {}), limits)
    return Question([Voice(item)], _wanted(body, True, bundle), body)


async def search(engine: Engine, collection: Collection, question: Question, exchange: Exchange) -> SearchResult:
    """Raises what embedding, looking up and searching raise."""
    inputs = [voice.source for voice in question.voices if isinstance(voice.source, Item)]
    outcomes = await embed_items(engine, inputs, exchange)
    settle(inputs, outcomes, "fail")
    embedded = iter([one.vector for one in outcomes if isinstance(one, Embedded)])
    return await asyncio.to_thread(_search, collection, question, [next(embedded) for _ in inputs])


def _search(collection: Collection, question: Question, embedded: Sequence[Vectors]) -> SearchResult:
    waiting = iter(embedded)
    vectors = [_vector(voice.source, collection) if not isinstance(voice.source, Item) else next(waiting) for voice in question.voices]
    body = question.body
    asked = {_modality(voice.source, collection) for voice in question.voices}
    return collection.search(
        Query(
            # A lone voice goes as it is, so that the collection itself judges a vector of the wrong size.
            vector=vectors[0] if len(vectors) == 1 and body.mix is None else blend(vectors, [voice.weight for voice in question.voices]),
            top_k=body.top_k,
            modalities=question.modalities,
            filter=body.filter,
            group_by=body.group_by,
            min_score=body.min_score,
            offset=body.offset,
            include_embedding="embedding" in body.include,
            query_modality=asked.pop() if len(asked) == 1 else None,
            exact=body.exact,
            centred=body.centred,
            exclude_ids=tuple(voice.source for voice in question.voices if isinstance(voice.source, str)),
        )
    )


def _modality(source: Item | str | Vectors, collection: Collection) -> str | None:
    if isinstance(source, Item):
        return source.modality
    return collection.get(source).modality if isinstance(source, str) else None


def _vector(source: str | Vectors, collection: Collection) -> Vectors:
    return collection.get(source).vector if isinstance(source, str) else source


def _voice(part: MixPart, bundle: Bundle, limits: Limits, pointer: str) -> Voice:
    if part.item is not None:
        return Voice(part.item, part.weight)
    if part.vector is not None:
        return Voice(given_vector(part.vector, pointer), part.weight)
    given = AnyInput(text=part.text, data=part.data, url=part.url, name=part.name or "query", options=part.options, modality=part.modality)
    modality = modality_of(given, bundle, pointer)
    return Voice(item_of(given, modality, bundle.modality(modality).kind, None, limits, pointer or "/"), part.weight)


def _wanted(body: SearchBody, modality_is_the_files: bool, bundle: Bundle) -> tuple[str, ...] | None:
    named = body.modalities
    if named is None and body.modality is not None and not modality_is_the_files:
        named = [body.modality]
    for name in named or ():
        bundle.modality(name)  # a name that is none would find nothing, and not say why
    return None if named is None else tuple(named)
