"""Items, outcomes and errors as JSON and raw bytes, and back to the same: between an HTTP process and the engine's. No pickles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bindery.bundle import Bundle
from bindery.clips import Clip, Window
from bindery.engine.clips import EmbeddedClips
from bindery.engine.embedded import Embedded
from bindery.errors import BinderyError, InternalError, error_table
from bindery.kinds import parse_options
from bindery.media.source import Source
from bindery.spec import Options
from bindery.vectors import Vectors
from service.inputs import Item
from service.remote import Remote
from service.tracing import Stretch

Outcome = Embedded | BinderyError


def packed_error(error: BinderyError) -> list[Any]:
    return [error.code, error.detail, error.pointer, error.retry_after_ms]


def unpacked_error(packed: Sequence[Any]) -> BinderyError:
    code, detail, pointer, retry_after_ms = packed
    return _classes().get(code, InternalError)(detail, pointer=pointer, retry_after_ms=retry_after_ms)


def pack_items(items: Sequence[Item]) -> tuple[dict[str, Any], list[bytes]]:
    """As JSON, and the files that are in memory, one after the other."""
    blobs: list[bytes] = []
    options: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}  # the items of a request mostly share one object
    rows = []
    for item in items:
        if item.options is not None and id(item.options) not in numbers:
            numbers[id(item.options)] = len(options)
            options.append(item.options.model_dump(mode="json", exclude_defaults=True))
        number = None if item.options is None else numbers[id(item.options)]
        rows.append([item.name, item.modality, *_packed_value(item.value, blobs), number, item.pointer])
    return {"items": rows, "options": options}, blobs


def unpack_items(packed: Mapping[str, Any], body: bytes, bundle: Bundle) -> list[Item]:
    at = 0
    items = []
    known: dict[tuple[str, int], Options] = {}
    for name, modality, form, content, number, pointer in packed["items"]:
        if form == "data":
            value: Any = Source(content[0], data=body[at : at + content[1]])
            at += content[1]
        else:
            value = _unpacked_value(form, content)
        options = None
        if number is not None:
            kind = bundle.modality(modality).kind
            if (kind, number) not in known:
                known[kind, number] = parse_options(kind, packed["options"][number])
            options = known[kind, number]
        items.append(Item(name, modality, value, options, pointer))
    return items


def pack_outcomes(outcomes: Sequence[Outcome]) -> tuple[list[Any], list[memoryview]]:
    """As JSON, and the vectors, one after the other."""
    blobs: list[memoryview] = []
    rows: list[Any] = []
    for outcome in outcomes:
        if isinstance(outcome, BinderyError):
            rows.append({"error": packed_error(outcome)})
            continue
        row: dict[str, Any] = {"usage": outcome.usage, "cut": outcome.truncated, "ms": outcome.timings_ms, "batch": outcome.batch}
        blobs.append(_raw(outcome.vector))
        if isinstance(outcome, EmbeddedClips):
            row |= {"clips": [_packed_clip(clip, blobs) for clip in outcome.clips], "pool": outcome.pool}
        rows.append(row)
    return rows, blobs


def unpack_outcomes(rows: Sequence[Any], body: bytes, dimension: int) -> list[Outcome]:
    vectors = iter(np.frombuffer(body, np.float32).reshape(-1, dimension))
    return [_unpacked_outcome(row, vectors) for row in rows]


def pack_stretches(stretches: Sequence[Stretch]) -> list[Any]:
    return [asdict(one) for one in stretches]


def unpack_stretches(packed: Sequence[Any]) -> list[Stretch]:
    return [Stretch(**{**one, "parts": tuple(unpack_stretches(one["parts"]))}) for one in packed]


def _packed_value(value: Any, blobs: list[bytes]) -> tuple[str, Any]:
    if isinstance(value, str):
        return "text", value
    if isinstance(value, BinderyError):
        return "error", packed_error(value)
    if isinstance(value, Remote):
        return "url", [value.url, value.name]
    if not isinstance(value, Source):
        return "ids", json.dumps(list(value))  # whatever their size: orjson stops at 64 bits
    if value.data is None:
        return "path", [value.name, str(value.path)]
    blobs.append(value.data)
    return "data", [value.name, len(value.data)]


def _unpacked_value(form: str, content: Any) -> Any:
    if form == "text":
        return content
    if form == "error":
        return unpacked_error(content)
    if form == "url":
        return Remote(*content)
    if form == "ids":
        return json.loads(content)
    return Source(content[0], path=Path(content[1]))


def _packed_clip(clip: Clip, blobs: list[memoryview]) -> list[Any]:
    window = [clip.window.start, clip.window.end, clip.window.is_whole]
    if isinstance(clip.vector, BinderyError):
        return [*window, packed_error(clip.vector)]
    blobs.append(_raw(clip.vector))
    return [*window, None]


def _unpacked_outcome(row: Mapping[str, Any], vectors: Iterator[Vectors]) -> Outcome:
    if "error" in row:
        return unpacked_error(row["error"])
    vector = next(vectors)
    if "clips" not in row:
        return Embedded(vector, row["usage"], row["cut"], row["ms"], batch=row["batch"])
    clips = tuple(
        Clip(Window(start, end, is_whole), next(vectors) if error is None else unpacked_error(error))
        for start, end, is_whole, error in row["clips"]
    )
    return EmbeddedClips(vector, row["usage"], row["cut"], row["ms"], clips, row["pool"], batch=row["batch"])


def _raw(vector: Vectors) -> memoryview:
    return np.ascontiguousarray(vector, dtype=np.float32).data.cast("B")


@cache
def _classes() -> dict[str, type[BinderyError]]:
    return {error.code: error for error in error_table()}
