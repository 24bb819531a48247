"""Answers: JSON by orjson (float32 rows without a detour through Python numbers), `.npy`, and what the caller accepts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from bindery.errors import NotAcceptable
from bindery.vectors import Encoding, Vectors, encode

NPY = "application/x-npy"


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


class Npy(Response):
    """``(n, d)`` float32 as a `.npy` file."""

    media_type = NPY

    def __init__(self, vectors: Vectors, headers: Mapping[str, str] | None = None) -> None:
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(vectors, dtype="<f4"), allow_pickle=False)
        super().__init__(stream.getvalue(), headers=headers)


def on_the_wire(vector: Vectors, encoding: Encoding) -> Any:
    """One vector ``(d,)`` as JSON shall show it; orjson writes float32 in its shortest exact form by itself."""
    return vector if encoding == "float" else encode(vector, encoding)


def accepted(request: Request) -> Literal["json", "npy"]:
    """What the `Accept` header prefers of the two that we have. Raises `NotAcceptable`."""
    weights = _weights(request.headers.get("accept", "*/*"))
    npy = weights.get(NPY, 0.0)
    json = max(weights.get(name, 0.0) for name in ("application/json", "application/*", "*/*"))
    if npy == json == 0.0:
        raise NotAcceptable(f"the answer comes as application/json or {NPY}; the Accept header takes neither")
    return "npy" if npy and npy >= json else "json"


def _weights(header: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[name.lower()] = float(quality)
        except ValueError:
            weights[name.lower()] = 0.0
    return weights
