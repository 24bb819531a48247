"""Errors as answers: `application/problem+json` (RFC 9457), rendered from the class of the error and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from bindery.errors import BinderyError, InternalError, InvalidParameter, MethodNotAllowed, UnknownPath
from service.answers import Json
from service.exchange import exchange_of

MEDIA_TYPE = "application/problem+json"
OPENAI_PATH = "/v1/embeddings"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
TOLD = 100  # faults of one body
RETRY_AFTER_MS = 1000  # for an error that may pass by itself and does not know when

M = TypeVar("M", bound=BaseModel)


class ErrorEntry(BaseModel):
    pointer: str = Field(description="JSON pointer to the offending part", examples=["/inputs/3"])
    code: str
    detail: str


class Problem(BaseModel):
    """What went wrong, for people (`title`, `detail`) and for machines (`code`, `retryable`)."""

    type: str = Field(examples=["urn:bindery:problem:unreadable_media"])
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    retry_after_ms: int | None = None
    errors: list[ErrorEntry] | None = None


class Several(Exception):
    """Several errors of one request; the first gives the status."""

    def __init__(self, found: Sequence[tuple[str, BinderyError]]) -> None:
        super().__init__(found[0][1].detail)
        self.first = found[0][1]
        self.entries = [ErrorEntry(pointer=pointer, code=error.code, detail=error.detail) for pointer, error in found]


def install(app: FastAPI) -> None:
    """Handlers for everything that a route may raise on purpose; `service.edge` answers what nobody foresaw."""
    app.add_exception_handler(BinderyError, _on_known)
    app.add_exception_handler(Several, _on_several)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def problem_response(
    request: Request, error: BinderyError, entries: Sequence[ErrorEntry] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """One error as its answer. ``entries`` lists the parts that failed, when there are several."""
    retry_after_ms = error.retry_after_ms or (RETRY_AFTER_MS if error.status == 503 else None)
    if not entries and error.pointer is not None:
        entries = [ErrorEntry(pointer=error.pointer, code=error.code, detail=error.detail)]
    document: dict[str, Any] = {  # a `Problem`; made by hand, since under a flood it is most of what a refusal costs
        "type": f"urn:bindery:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": exchange_of(request).request_id,
        "retryable": error.retryable,
    }
    shown = dict(headers or {})
    if retry_after_ms is not None:
        document["retry_after_ms"] = retry_after_ms
        shown |= {"Retry-After": str(math.ceil(retry_after_ms / 1000)), "retry-after-ms": str(retry_after_ms)}
    if entries:
        document["errors"] = [entry.model_dump() for entry in entries]
    if request.scope["path"].rstrip("/") == OPENAI_PATH:
        document["error"] = _openai_error(error, entries)
    return Json(document, status_code=error.status, headers=shown, media_type=MEDIA_TYPE)


def invalid_parameters(error: ValidationError | RequestValidationError, prefix: str = "") -> Several:
    """Pydantic's complaints in our words: one `invalid_parameter` each, pointing at its place in the body."""
    if isinstance(error, ValidationError) and error.error_count() > TOLD:
        fault = InvalidParameter(f"the body has {error.error_count()} faults, too many to tell", pointer=prefix or "/")
        return Several([(prefix or "/", fault)])
    found: list[tuple[str, BinderyError]] = []
    for one in error.errors():
        place = [part for part in one["loc"] if part not in ("body", "query", "path", "header")]
        pointer = prefix + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
        field = ".".join(str(part) for part in place) or "the body"
        reason = "is not known here" if one["type"] == "extra_forbidden" else str(one["msg"]).removeprefix("Value error, ")
        detail = f"{field} {reason}" if one["type"] == "extra_forbidden" else f"{field}: {reason}"
        found.append((pointer or "/", InvalidParameter(detail, pointer=pointer or "/")))
    return Several(found)


def validated(model: type[M], values: Any) -> M:
    """Raises `Several`: each fault of the values as an `invalid_parameter`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid_parameters(error) from error


async def _on_known(request: Request, error: Exception) -> Response:
    assert isinstance(error, BinderyError)
    return problem_response(request, _outward(error))


async def _on_several(request: Request, error: Exception) -> Response:
    assert isinstance(error, Several)
    return problem_response(request, _outward(error.first), error.entries)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_several(request, invalid_parameters(error))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(request, UnknownPath(f"{request.url.path[:200]} is no address of this API; /docs lists them"))
    if error.status_code == 405:
        allow = ", ".join(_methods(request))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": allow})
        return problem_response(
            request, MethodNotAllowed(f"{request.method[:20]} does not work here; use {allow}"), headers={"Allow": allow}
        )
    return problem_response(request, InternalError("the server could not answer this request"))


def _outward(error: BinderyError) -> BinderyError:
    """An error of our own making (a damaged bundle, say) names paths of this machine: its text stays in the log."""
    if error.status == 500 and not isinstance(error, InternalError):
        return InternalError("the server could not answer this request; its log says why")
    return error


def _methods(request: Request) -> list[str]:
    routes = request.app.router.routes
    found = [m for m in METHODS if any(route.matches({**request.scope, "method": m})[0] is Match.FULL for route in routes)]
    return sorted({*found, "OPTIONS", *(["HEAD"] if "GET" in found else [])})


def _openai_error(error: BinderyError, entries: Sequence[ErrorEntry]) -> dict[str, Any]:
    kind = "server_error" if error.status >= 500 else "rate_limit_error" if error.status == 429 else "invalid_request_error"
    pointer = entries[0].pointer if entries else ""
    return {"message": error.detail, "type": kind, "param": pointer.strip("/").replace("/", ".") or None, "code": error.code}
