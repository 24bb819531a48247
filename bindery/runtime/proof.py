"""Does what was built for this machine give the exact graph's vectors? Asked before it is kept, so that nothing unproved is run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bindery.bundle import Artefact, Precision, TensorInfo
from bindery.decoded import Tensors
from bindery.errors import DeviceUnavailable
from bindery.runtime.encoder import Encoder

FLOORS: dict[Precision, float] = {"exact": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.99}
"""Least cosine to the exact graph on the CPU."""

BATCH_TOLERANCE = 1e-5
_DISTINCT = 4


class NotProved(DeviceUnavailable):
    """It was built and gives other vectors: it is not kept, and the next runtime of the ladder has its turn."""


def prove(built: Encoder, exact: Encoder, artefact: Artefact, lengths: Sequence[int]) -> float:
    """The least cosine of ``built`` to ``exact``, over batches of 1, 2 and the largest, each at every one of ``lengths`` (of texts).

    Raises `NotProved` below the floor of its precision, or when a row depends on its batch mates by more than 1e-5.
    """
    least = 1.0
    for length in lengths:
        items = [_item(artefact.inputs, length, seed) for seed in range(_DISTINCT)]
        wanted = np.concatenate([exact.encode(_batch([item])) for item in items])
        alone = np.concatenate([built.encode(_batch([item])) for item in items])
        for size in sorted({1, min(2, artefact.max_batch), artefact.max_batch}):
            rows = [n % _DISTINCT for n in range(size)]
            vectors = built.encode(_batch([items[n] for n in rows]))
            cosine = float((vectors.astype(np.float64) * wanted[rows]).sum(axis=1).min())
            moved = float(np.abs(vectors - alone[rows]).max())
            least = min(least, cosine)
            if not cosine >= FLOORS[artefact.precision]:
                raise NotProved(
                    f"{built.provider} gives other vectors than the exact graph: cosine {cosine:.5f} at batch {size}, "
                    f"at least {FLOORS[artefact.precision]} is asked in precision {artefact.precision}"
                )
            if not moved <= BATCH_TOLERANCE:
                raise NotProved(f"{built.provider}: a vector moves by {moved:.1e} with the items beside it, at batch {size}")
    return least


def _item(inputs: Sequence[TensorInfo], length: int, seed: int) -> Tensors:
    random = np.random.default_rng(seed)
    made: Tensors = {}
    for one in inputs:
        shape = tuple(side if isinstance(side, int) else length for side in one.shape[1:])
        if one.name == "attention_mask":
            made[one.name] = np.ones(shape, np.int64)
        elif one.dtype == "int64":
            made[one.name] = random.integers(1, 200, shape)
        else:
            made[one.name] = random.standard_normal(shape, dtype=np.float32)
    return made


def _batch(items: Sequence[Tensors]) -> Tensors:
    return {name: np.stack([item[name] for item in items]) for name in items[0]}
