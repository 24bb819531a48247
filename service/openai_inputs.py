"""OpenAI's ways to write an input, as items: strings, token ids, data: URIs and typed parts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from bindery.bundle import Bundle
from bindery.errors import BinderyError, InvalidParameter, UnknownModality, UnsupportedMedia
from bindery.kinds import parse_options
from bindery.limits import Limits
from service.attached import Attached
from service.inputs import Item, as_text, check_count, media_source, too_long
from service.remote import Remote

# "data: the new oil" is a text; "data:image/png;base64,..." is a file.
_DATA_URI = re.compile(r"data:(?P<family>[a-z]+)/[\w.+-]+(?:;[^,]*)?,", re.IGNORECASE)
_FAMILIES = frozenset({"image", "audio", "video", "text"})

Given = str | Attached | Sequence[int] | Sequence[str | Attached | Sequence[int] | Mapping[str, Any]]


def openai_items(given: Given, bundle: Bundle, limits: Limits) -> list[Item]:
    """One item an embedding, in order; an input that cannot be one carries its error. Raises `InvalidParameter`, `TooManyItems`."""
    alone = isinstance(given, str | Attached) or _are_token_ids(given)
    entries: list[Any] = [given] if alone else list(cast(Sequence[Any], given))
    pointers = ["/input"] if alone else [f"/input/{index}" for index in range(len(entries))]
    items = [_item_or_error(entry, pointer, bundle, limits) for entry, pointer in zip(entries, pointers, strict=True)]
    is_text = all(isinstance(item.value, str | list) for item in items)
    check_count(len(items), "text" if is_text else "media", limits, "/input")
    return items


def _are_token_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int) for one in value)


def _item_or_error(entry: Any, pointer: str, bundle: Bundle, limits: Limits) -> Item:
    name = pointer.rsplit("/", 1)[-1]
    try:
        if isinstance(entry, Mapping):
            return _part(entry, name, pointer, bundle, limits)
        if isinstance(entry, str | Attached):
            return _string(entry, name, pointer, bundle, limits)
        return Item(name, bundle.text_modality(), list(entry), None, pointer)
    except BinderyError as error:
        return Item(name, "text", error, None, pointer)


def _string(value: str | Attached, name: str, pointer: str, bundle: Bundle, limits: Limits) -> Item:
    found = _DATA_URI.match(value if isinstance(value, str) else value.head.replace("\\/", "/"))
    if found is None:
        if isinstance(value, Attached):
            raise too_long(value.chars, limits)
        return Item(name, bundle.text_modality(), value, None, pointer)
    family = found["family"].lower()
    if family not in _FAMILIES:
        raise UnsupportedMedia(
            f"the data: URI is of type {family}/...; plain strings hold image, audio, video or text. Use a part with its modality as `type`"
        )
    return _media(value, _modality_of(family, bundle), name, pointer, bundle, limits)


def _part(part: Mapping[str, Any], name: str, pointer: str, bundle: Bundle, limits: Limits) -> Item:
    kind = part.get("type")
    if not isinstance(kind, str):
        raise InvalidParameter(
            'a part needs its "type": text, image_url, input_audio, video_url or the name of a modality', pointer=pointer
        )
    wanted = kind.removeprefix("input_").removesuffix("_url")
    payload = next((part[key] for key in (kind, wanted, f"{wanted}_url", "data") if key in part), None)
    modality = _modality_of(wanted, bundle)
    if isinstance(payload, Mapping):
        payload = payload.get("url", payload.get("data"))
    if not isinstance(payload, str | Attached):
        raise InvalidParameter(
            f'the part of type {kind!r} has no content; write it as {{"type": "{kind}", "{kind}": ...}}', pointer=pointer
        )
    if bundle.modality(modality).kind == "text":
        if isinstance(payload, Attached):
            raise too_long(payload.chars, limits)
        return Item(name, modality, payload, None, pointer)
    options = part.get("options")
    if options is not None and not isinstance(options, Mapping):
        raise InvalidParameter("options must be an object", pointer=f"{pointer}/options")
    return _media(payload, modality, name, pointer, bundle, limits, options)


def _media(
    value: str | Attached,
    modality: str,
    name: str,
    pointer: str,
    bundle: Bundle,
    limits: Limits,
    options: Mapping[str, Any] | None = None,
) -> Item:
    kind = bundle.modality(modality).kind
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]*://", value, re.IGNORECASE):
        return Item(name, modality, Remote(value, name), None if kind == "text" else parse_options(kind, options or {}), pointer)
    source = media_source(value, pointer.lstrip("/"), limits)
    if kind == "text":
        return Item(name, modality, as_text(source, limits), None, pointer)
    return Item(name, modality, source, parse_options(kind, options or {}), pointer)


def _modality_of(name: str, bundle: Bundle) -> str:
    """The modality of that name, else the first of that kind. Raises `UnknownModality`."""
    modalities = bundle.manifest.modalities
    if name in modalities:
        return name
    for other, modality in modalities.items():
        if modality.kind == name:
            return other
    raise UnknownModality(f"bundle {bundle.name!r} has no modality {name!r}; it has: {', '.join(sorted(modalities))}")
