"""JSON bodies: bounded in bytes and depth, parsed off the event loop when they are big, then a pydantic model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from bindery.errors import MalformedJson, UnsupportedMedia
from service.body import read_whole
from service.problems import invalid_parameters
from service.state import state_of

DEPTH = 32  # the deepest document of this API is 8 deep; filters may nest
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
    limits = state_of(request).limits
    body = await read_whole(request, most_bytes=limits.json_body_bytes, limit="json_body_bytes")
    return await off_loop(len(body), parse, body or empty, model)


async def off_loop(size_bytes: int, work: Callable[..., T], *arguments: Any) -> T:
    """``work(*arguments)``, in a thread when ``size_bytes`` says that it would hold the event loop up."""
    if size_bytes < OFF_LOOP_BYTES:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)


def parse(body: bytes | bytearray | str, model: type[M]) -> M:
    document = load(body)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise invalid_parameters(error) from error


def load(body: bytes | bytearray | str, field: str | None = None) -> Any:
    """Any JSON document of bounded depth, from the body or from a ``field``. Raises `MalformedJson`."""
    what, pointer = ("the body", None) if field is None else (field, f"/{field}")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"{what} is not valid JSON: {error}", pointer=pointer) from error
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(DEPTH):
        if not level:
            return document
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
    raise MalformedJson(f"{what} is nested deeper than {DEPTH} levels", pointer=pointer)


def _children(parent: dict[str, Any] | list[Any]) -> Any:
    return parent.values() if isinstance(parent, dict) else parent
