"""Inputs: whatever form a body has (JSON, multipart, raw bytes), it becomes the same list of items and the same parameters."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import unquote_to_bytes

import numpy as np
from pydantic import BaseModel
from starlette.requests import Request

from bindery.bundle import Bundle
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, InvalidParameter, TooLong, TooManyBytes, TooManyItems, UnsupportedMedia, UrlNotAllowed
from bindery.kinds import parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import Options
from bindery.vectors import Vectors
from service.attached import Attached
from service.body import chunks_of
from service.exchange import exchange_of
from service.json_body import is_json, media_type, off_loop, read_json
from service.multipart import FieldPart, FilePart, Part, read_form
from service.problems import validated
from service.remote import Remote
from service.schemas.embed import InputsBody, MediaInput, Parameters, repeated
from service.schemas.similarity import AnyInput
from service.spool import WRITE_BYTES, Upload
from service.state import state_of

P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True, slots=True)
class Item:
    """One input that came through the door; ``value`` is its error when it was already clear that it cannot be embedded."""

    name: str
    modality: str
    value: Source | Remote | str | Sequence[int] | BinderyError
    options: Options | None = None
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Inputs(Generic[P]):
    engine: Engine
    items: list[Item]
    parameters: P


@asynccontextmanager
async def read_inputs(request: Request, modality: str, body: type[InputsBody], parameters: type[P]) -> AsyncIterator[Inputs[P]]:
    """Items of one modality with their parameters and the engine of the model they name. Uploaded files live as long as the context.

    Raises `UnknownModality` and `UnknownModel`, when it can before the body is read, and what reading raises.
    """
    state, exchange = state_of(request), exchange_of(request)
    state.models.check_modality(modality)
    content_type = media_type(request)
    if is_json(content_type):
        document = await read_json(request, body)
        engine = state.models.held(document.model, exchange)
        kind = engine.bundle.modality(modality).kind
        check_count(len(document.inputs), kind, state.limits)
        options = parse_options(kind, document.options)
        size = sum(one.size_chars for one in document.inputs)
        items = await off_loop(size, _json_items, document.inputs, modality, kind, options, state.limits)
        chosen = {name: getattr(document, name) for name in parameters.model_fields}
        yield Inputs(engine, items, parameters.model_validate(chosen))
    elif content_type == "multipart/form-data":
        async with read_form(request) as parts:
            named = next((part.text for part in parts if isinstance(part, FieldPart) and part.field == "model"), None)
            engine = state.models.held(named, exchange)
            yield await asyncio.to_thread(_form_inputs, parts, modality, engine, parameters, state.limits)
    else:
        engine = state.models.held(request.query_params.get("model"), exchange)
        kind = engine.bundle.modality(modality).kind
        async with _read_raw(request, content_type, kind) as source:
            values, rest = split_fields([(name, value) for name, value in request.query_params.multi_items()], parameters)
            name = values.pop("name", "body")
            options = parse_options(kind, rest)
            item = _media_item(Source(str(name), source.path, source.data), modality, kind, options, "/inputs/0", state.limits)
            yield Inputs(engine, [item], validated(parameters, values))


def check_count(count: int, kind: str, limits: Limits, pointer: str = "/inputs") -> None:
    """Raises `InvalidParameter` for no items, `TooManyItems` for too many."""
    most, name = (limits.items_text, "items_text") if kind == "text" else (limits.items_media, "items_media")
    if count == 0:
        raise InvalidParameter("there is no input; send at least one", pointer=pointer)
    if count > most:
        raise TooManyItems(f"{count} items in one request; at most {most} are taken (limit {name})", pointer=pointer)


def media_source(value: str | Attached, name: str, limits: Limits) -> Source:
    """The bytes of a base64 string or of a ``data:`` URI. Raises `InvalidParameter`, `TooManyBytes`, `UrlNotAllowed`."""
    if isinstance(value, Attached):
        return value.source(name, limits)
    if value[:5].lower() == "data:":
        head, comma, payload = value.partition(",")
        if not comma:
            raise InvalidParameter(f"{name} is a data: URI without a comma before its data")
        if not head.lower().endswith(";base64"):
            return Source(name, data=_bounded(unquote_to_bytes(payload), name, limits))
        value = unquote_to_bytes(payload).decode("ascii", "replace") if "%" in payload else payload
    elif "://" in value[:16]:
        raise UrlNotAllowed(f"{name} is a URL, where bytes are wanted: base64, or a data: URI. A URL goes into a member of its own, `url`")
    if len(value) // 4 * 3 > limits.file_bytes + 3:
        raise _too_many_bytes(name, limits)
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidParameter(f"{name} is not valid base64: {error}") from error
    return Source(name, data=_bounded(data, name, limits))


def as_text(source: Source, limits: Limits) -> str:
    """A text that came as a file. Raises `UnsupportedMedia` for what is no UTF-8, `TooLong`."""
    if source.size_bytes > 4 * limits.text_chars:
        raise TooLong(f"{source.name} has {source.size_bytes} bytes; a text has at most {limits.text_chars} characters (limit text_chars)")
    try:
        return source.head(source.size_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnsupportedMedia(f"{source.name} is not UTF-8 text; this modality takes text") from error


def too_long(chars: int, limits: Limits) -> TooLong:
    return TooLong(f"the text has {chars} characters; at most {limits.text_chars} are taken (limit text_chars)")


def item_of(given: MediaInput, modality: str, kind: str, options: Options | None, limits: Limits, pointer: str) -> Item:
    """One JSON input as an item, with its error in place of its value where it has one."""
    name = given.name or pointer.rsplit("/", 1)[-1]
    shown = given.name or pointer.lstrip("/")  # in messages: "inputs/3 is ..." says more than "3 is ..."
    try:
        if given.options is not None:
            options = parse_options(kind, given.options)
        if given.url is not None:
            return Item(name, modality, Remote(given.url, name), options, pointer)
        if given.text is not None:
            if isinstance(given.text, Attached):
                if kind == "text":
                    raise too_long(given.text.chars, limits)
                return Item(name, modality, media_source(given.text, shown, limits), options, pointer)
            if kind != "text" and given.text[:5].lower() == "data:":
                return Item(name, modality, media_source(given.text, shown, limits), options, pointer)
            return Item(name, modality, given.text, options, pointer)
        item = _media_item(media_source(given.data or "", shown, limits), modality, kind, options, pointer, limits)
        return replace(item, name=name)
    except BinderyError as error:
        return Item(name, modality, error, options, pointer)


def any_items(given: Sequence[AnyInput], bundle: Bundle, limits: Limits, pointer: str) -> list[Item]:
    """Items that each say their modality (texts need not). Raises `InvalidParameter`, `UnknownModality`, `TooManyItems`."""
    items: list[Item] = []
    texts = 0
    for index, one in enumerate(given):
        modality = modality_of(one, bundle, f"{pointer}/{index}")
        kind = bundle.modality(modality).kind
        texts += kind == "text"
        items.append(item_of(one, modality, kind, None, limits, f"{pointer}/{index}"))
    check_count(len(items), "text" if texts == len(items) else "media", limits, pointer)
    return items


def modality_of(given: AnyInput, bundle: Bundle, pointer: str) -> str:
    if given.modality is not None:
        return given.modality
    if given.text is not None:
        return bundle.text_modality()
    raise InvalidParameter(f"the input needs its modality, one of {', '.join(bundle.manifest.modalities)}", pointer=f"{pointer}/modality")


def form_item(part: Part, pointer: str, modality: str, kind: str, options: Options | None, limits: Limits) -> Item:
    """One `file` or `text` part of a form as an item."""
    if isinstance(part, FieldPart):
        return Item(pointer.rsplit("/", 1)[-1], modality, part.text, options, pointer)
    try:
        return _media_item(part.source, modality, kind, options, pointer, limits)
    except BinderyError as error:
        return Item(part.source.name, modality, error, options, pointer)


def given_vector(values: Sequence[float], pointer: str) -> Vectors:
    """A vector ``(d,)`` from JSON. Raises `InvalidParameter` for numbers that float32 cannot hold."""
    with np.errstate(over="ignore"):
        vector = np.asarray(values, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise InvalidParameter("the vector has values that are no finite float32 numbers", pointer=f"{pointer}/vector")
    return vector


def _json_items(inputs: Sequence[MediaInput], modality: str, kind: str, options: Options, limits: Limits) -> list[Item]:
    return [item_of(one, modality, kind, options, limits, f"/inputs/{index}") for index, one in enumerate(inputs)]


def _media_item(source: Source, modality: str, kind: str, options: Options | None, pointer: str, limits: Limits) -> Item:
    if kind != "text":
        return Item(source.name, modality, source, options, pointer)
    return Item(source.name, modality, as_text(source, limits), options, pointer)


def _form_inputs(parts: Sequence[Part], modality: str, engine: Engine, parameters: type[P], limits: Limits) -> Inputs[P]:
    kind = engine.bundle.modality(modality).kind
    inputs = [part for part in parts if part.field in ("file", "text")]
    stray = next((part.field for part in parts if isinstance(part, FilePart) and part.field != "file"), None)
    if stray is not None:
        raise InvalidParameter(f"the file part is named {stray!r}; name it 'file'", pointer=f"/{stray}")
    check_count(len(inputs), kind, limits)
    values, rest = split_fields(
        [(part.field, part.text) for part in parts if isinstance(part, FieldPart) and part.field != "text"], parameters
    )
    options = parse_options(kind, rest)
    items = [form_item(part, f"/inputs/{index}", modality, kind, options, limits) for index, part in enumerate(inputs)]
    return Inputs(engine, items, validated(parameters, values))


@asynccontextmanager
async def _read_raw(request: Request, content_type: str, kind: str) -> AsyncIterator[Source]:
    if content_type in ("", "application/x-www-form-urlencoded") or (kind != "text" and content_type.startswith("text/")):
        raise UnsupportedMedia(
            f"the body is {content_type or 'of no stated type'}; send multipart/form-data, application/json, or the file itself "
            "with its own content type (audio/wav, image/png, application/octet-stream ...)"
        )
    state = state_of(request)
    upload, waiting = Upload(state.spool), bytearray()
    try:
        async for chunk in chunks_of(request, most_bytes=state.limits.file_bytes, limit="file_bytes"):
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                await asyncio.to_thread(upload.write, waiting)
                waiting = bytearray()
        upload.write(waiting)
        yield upload.source("body")
    finally:
        upload.discard()


def split_fields(pairs: Sequence[tuple[str, str]], parameters: type[BaseModel]) -> tuple[dict[str, Any], dict[str, object]]:
    """Form fields by whom they are for: our parameters (lists where a list is wanted), and the kind's options."""
    lists = repeated(parameters)
    values: dict[str, Any] = {}
    rest: dict[str, object] = {}
    for name, text in pairs:
        if name in lists:
            values.setdefault(name, []).append(text)
        elif name in values or name in rest:
            raise InvalidParameter(f"{name} is given twice; give it once", pointer=f"/{name}")
        elif name in parameters.model_fields or name == "name":
            values[name] = text
        else:
            rest[name] = text
    return values, rest


def _bounded(data: bytes, name: str, limits: Limits) -> bytes:
    if len(data) > limits.file_bytes:
        raise _too_many_bytes(name, limits)
    return data


def _too_many_bytes(name: str, limits: Limits) -> TooManyBytes:
    return TooManyBytes(f"{name} has more than {limits.file_bytes} bytes (limit file_bytes)")
