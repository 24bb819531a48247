"""JSON bodies: bounded in bytes and depth, parsed off the event loop when they are big, then a pydantic model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request

from bindery.errors import MalformedJson, TooManyBytes, UnsupportedMedia
from bindery.limits import Limits
from service.attached import LEAST_BYTES, attach, detach
from service.body import read_whole
from service.exchange import exchange_of
from service.problems import validated
from service.spool import writing
from service.state import state_of

_OF_A_LIST = 100  # what making one costs, in numbers
OFF_LOOP_BYTES = 64 * 1024  # below, parsing is cheaper than a hand-over to a thread

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def media_type(request: Request) -> str:
    """The content type without its parameters, lower case; empty when there is none."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


def is_json(content_type: str) -> bool:
    return content_type == "application/json" or (content_type.startswith("application/") and content_type.endswith("+json"))


async def read_json(request: Request, model: type[M], empty: bytes = b"") -> M:
    """The body as ``model``; ``empty`` stands for a body of no bytes.

    Raises `UnsupportedMedia`, `MalformedJson`, `TooManyBytes`, or `Several` invalid parameters.
    """
    content_type = media_type(request)
    if content_type and not is_json(content_type):
        raise UnsupportedMedia(f"the body is {content_type[:80]}; this address takes application/json")
    state = state_of(request)
    body = await read_whole(request, most_bytes=state.limits.json_body_bytes, limit="json_body_bytes")
    if len(body) < LEAST_BYTES:
        return await off_loop(len(body), _parse_short, body or empty, model, state.limits)
    with writing():
        folder = Path(tempfile.mkdtemp(dir=state.spool))
    exchange_of(request).at_the_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    return await asyncio.to_thread(_parse_long, body, model, folder, state.limits)


async def off_loop(size_bytes: int, work: Callable[..., T], *arguments: Any) -> T:
    """``work(*arguments)``, in a thread when ``size_bytes`` says that it would hold the event loop up."""
    if size_bytes < OFF_LOOP_BYTES:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)


def _parse_short(body: bytes | bytearray, model: type[M], limits: Limits) -> M:
    _check_values(body, limits)
    return validated(model, load(body, limits))


def _parse_long(body: bytearray, model: type[M], folder: Path, limits: Limits) -> M:
    """As `parse`, with what would keep Python's lock for long taken out of it first, or refused.

    Raises `TooManyBytes`, `StorageFull` too.
    """
    with writing():
        rest, files = detach(body, folder, limits)
    if files:
        body.clear()
    if len(rest) > limits.json_text_bytes:
        raise TooManyBytes(
            f"the body has {len(rest)} bytes besides its base64 files; at most {limits.json_text_bytes} are taken (limit json_text_bytes); "
            "send less, or in several requests"
        )
    _check_values(rest, limits)
    return validated(model, attach(load(rest, limits), files))


def _check_values(body: bytes | bytearray, limits: Limits) -> None:
    """Raises `TooManyBytes`."""
    if _values(body) > limits.json_values:
        raise TooManyBytes(
            f"the body has too many values, a list or object counting as {_OF_A_LIST} (limit json_values: {limits.json_values}); "
            "send less, or in several requests"
        )


def _values(body: bytes | bytearray) -> int:
    """About how many values it has, told by its punctuation, that in texts too. Counted in slices, to give others their turn."""
    weights = {b",": 1, b"[": _OF_A_LIST, b"{": _OF_A_LIST}
    return sum(
        weight * body.count(mark, at, at + LEAST_BYTES) for at in range(0, len(body), LEAST_BYTES) for mark, weight in weights.items()
    )


def load(body: bytes | bytearray | str, limits: Limits, field: str | None = None) -> Any:
    """Any JSON document of bounded depth, from the body or from a ``field``. Raises `MalformedJson`."""
    what, pointer = ("the body", None) if field is None else (field, f"/{field}")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"{what} is not valid JSON: {error}", pointer=pointer) from error
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(limits.json_depth):
        if not level:
            return document
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
    raise MalformedJson(f"{what} is nested deeper than {limits.json_depth} levels (limit json_depth)", pointer=pointer)


def _children(parent: dict[str, Any] | list[Any]) -> Any:
    return parent.values() if isinstance(parent, dict) else parent
