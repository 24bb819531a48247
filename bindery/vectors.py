"""Vectors: normalise, cut, encode for the wire. Shapes are ``(n, d)`` float32 throughout."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bindery.errors import InvalidParameter

Vectors = NDArray[np.float32]
Encoding = Literal["float", "base64", "int8", "ubinary"]


def normalize(vectors: NDArray[Any]) -> Vectors:
    """Rows divided by their L2 norm. A zero row stays zero (there is no direction to keep)."""
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.sqrt(np.einsum("...d,...d->...", rows, rows, dtype=np.float64))[..., None]
    return np.asarray(rows / np.where(norms == 0, 1.0, norms), dtype=np.float32)


def cut(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first ``dimensions`` components, normalised again. Raises `InvalidParameter` outside 1..d."""
    width = vectors.shape[-1]
    if dimensions is None or dimensions == width:
        return vectors
    if not 1 <= dimensions <= width:
        raise InvalidParameter(f"dimensions is {dimensions}; this space has 1 to {width}", pointer="/dimensions")
    return normalize(vectors[..., :dimensions])


def encode(vector: Vectors, encoding: Encoding) -> list[float] | list[int] | str:
    """One vector ``(d,)`` for JSON.

    ``float``: numbers; ``base64``: little-endian float32 bytes; ``int8``: round(127 · x); ``ubinary``: one bit a
    component (1 = positive), eight to a byte, most significant first.
    """
    if encoding == "float":
        return [float(x) for x in vector]
    if encoding == "base64":
        return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")
    if encoding == "int8":
        return [int(x) for x in np.clip(np.rint(vector * 127.0), -127, 127)]
    if encoding == "ubinary":
        return [int(x) for x in np.packbits(vector > 0)]
    raise InvalidParameter(f"encoding is {encoding!r}; use float, base64, int8 or ubinary", pointer="/encoding")
