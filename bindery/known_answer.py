"""One input of each modality that anyone can make again from its recipe, to ask a graph something whose answer is known.

The answers lie in the manifest (`bindery.bundle.KnownAnswer`): export writes them, and the engine asks when it starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bindery.bundle import KnownAnswer, TensorInfo
from bindery.decoded import Tensors
from bindery.prepare.tokens import TextTokenizer
from bindery.vectors import Vectors

TEXT = "a canary sings in the engine room"

FLOOR = 0.98
"""Cosine. Far below what rounding does in any precision that was ever proved, far above what a wrong graph gives."""

_STEPS = (7, 3, 5, 11, 13)
_PERIOD = 64


def known_input(inputs: Sequence[TensorInfo], tokenizer: TextTokenizer | None, text: str = TEXT) -> Tensors:
    """One item, no batch axis: ``text`` as tokens, or the stripes that fill whatever shape the graph takes."""
    if tokenizer is not None:
        return tokenizer.encode(text).tensors
    return {one.name: stripes(tuple(side if isinstance(side, int) else 1 for side in one.shape[1:])) for one in inputs}


def stripes(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The recipe `stripes`: a triangle wave from -1 to 1 of period 64 over ``7 a + 3 b + 5 c + 11 d + 13 e`` of the indices.

    Multiples of 1/16, so that the numbers are the same on every machine.
    """
    if len(shape) > len(_STEPS):
        raise ValueError(f"the recipe `stripes` knows {len(_STEPS)} axes; the graph takes {shape}")
    phase = sum(step * index for step, index in zip(_STEPS, np.indices(shape, sparse=True), strict=False))
    half = _PERIOD // 2
    return np.broadcast_to(np.abs(phase % _PERIOD - half) / (half / 2) - 1, shape).astype(np.float32)


def cosine_to(answer: KnownAnswer, vector: Vectors) -> float:
    """Of a unit vector ``(d,)`` to the answer; NaN when the vector is not finite."""
    known = np.asarray(answer.vector)
    return float(known @ vector.astype(np.float64) / np.linalg.norm(known))
