"""The parts of the OpenAPI document that FastAPI cannot see: bodies that are streamed, and errors from the one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from bindery.errors import BinderyError, Forbidden, InternalError, InvalidHeader, InvalidKey, MissingKey, RateLimited, TooManyInflight
from service.answers import NPY
from service.auth import scope_of
from service.problems import MEDIA_TYPE, Problem

Responses = dict[int | str, dict[str, Any]]


def json_body(
    model: type[BaseModel], example: Any = None, forms: Mapping[str, dict[str, Any]] | None = None, *, required: bool = True
) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its own JSON body; ``forms`` are other content types of the same body."""
    content: dict[str, Any] = {"application/json": {"schema": inlined(model)}}
    if example is not None:
        content["application/json"]["example"] = example
    return {"requestBody": {"required": required, "content": content | dict(forms or {})}}


def form_body(properties: Mapping[str, Any], example: Any = None) -> dict[str, Any]:
    """One `multipart/form-data` content entry."""
    entry: dict[str, Any] = {"schema": {"type": "object", "properties": dict(properties)}}
    return entry if example is None else entry | {"example": example}


FILES = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "one part a file, repeated"}
TEXTS = {"type": "array", "items": {"type": "string"}, "description": "one part a text, repeated"}
RAW = {"schema": {"type": "string", "format": "binary"}}
OR_NPY: dict[str, Any] = {"content": {NPY: RAW}}
"""Beside the model of an answer that also comes as an array."""


def problems(*errors: type[BinderyError]) -> Responses:
    """`responses` of a route: these errors and those that every route has, grouped by status."""
    by_status: dict[int, list[type[BinderyError]]] = {}
    every: tuple[type[BinderyError], ...] = (InvalidHeader, *errors, InternalError)
    for error in dict.fromkeys(every):
        by_status.setdefault(error.status, []).append(error)
    return {status: _response(several) for status, several in sorted(by_status.items())}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema without references, so that it can stand inside a path."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    resolved = _resolve(schema, definitions)
    assert isinstance(resolved, dict)
    return resolved


def _resolve(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _resolve(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
        return {key: _resolve(value, definitions) for key, value in node.items()}
    return [_resolve(one, definitions) for one in node] if isinstance(node, list) else node


def _response(errors: Sequence[type[BinderyError]]) -> dict[str, Any]:
    listed = "; ".join(f"`{error.code}`: {error.title}" for error in errors)
    example = {
        "type": f"urn:bindery:problem:{errors[0].code}",
        "title": errors[0].title,
        "status": errors[0].status,
        "detail": "what was wrong and what to do",
        "code": errors[0].code,
        "request_id": "3f0c",
        "retryable": errors[0].retryable,
    }
    return {"description": listed, "content": {MEDIA_TYPE: {"schema": inlined(Problem), "example": example}}}


def describe_app(app: FastAPI, *, asked_for: bool) -> None:
    """Put right what FastAPI supposes: faults of parameters are `Problem`s here, and only of routes that say so. Then add what the
    doorkeeper does: each operation's scope, the `Bearer` scheme, and the refusals."""
    plain = app.openapi
    refusals = {str(status): _response(several) for status, several in _REFUSALS.items()}

    def openapi() -> dict[str, Any]:
        document = plain()
        if "securitySchemes" in document.setdefault("components", {}):
            return document
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
                scope = scope_of(method.upper(), path)
                if scope is not None:
                    operation["security"] = [{"key": []}] if asked_for else [{}, {"key": []}]
                    operation["description"] = f"{operation.get('description', '')}\n\nScope of the key: `{scope}`.".strip()
                    operation["responses"] |= refusals
        return document

    app.openapi = openapi  # type: ignore[method-assign]


_REFUSALS = {401: (MissingKey, InvalidKey), 403: (Forbidden,), 429: (RateLimited, TooManyInflight)}
