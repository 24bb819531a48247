"""Does the graph compute what the tower computes? Measured at several batch sizes, through the runtime that will serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bindery.bundle import Parity
from bindery.decoded import Tensors
from bindery.errors import InternalError
from bindery.runtime.collate import collate
from bindery.runtime.encoder import Encoder
from bindery.vectors import Vectors
from export.errors import ParityError
from export.weights import Storage
from training.towers.tower import Tower


@dataclass(frozen=True, slots=True)
class Floor:
    """The least agreement that an export may have."""

    cosine_min: float
    max_abs: float


FLOORS: dict[Storage, Floor] = {
    "float32": Floor(cosine_min=0.9999, max_abs=1e-4),
    "float16": Floor(cosine_min=0.9999, max_abs=2e-3),
    # Rounding weights to 8 bit moves vectors by more than any graph error would; what is lost is written into the manifest.
    "int8": Floor(cosine_min=0.998, max_abs=2e-2),
}


def batch_sizes(max_batch: int) -> tuple[int, ...]:
    return tuple(sorted({size for size in (1, 2, 7, max_batch) if size <= max_batch}))


def reference_vectors(tower: Tower, items: Sequence[Tensors]) -> Vectors:
    """``(n, d)``: every item by itself, unpadded, through the torch tower in float32."""
    with torch.no_grad():
        rows = [tower(**{name: torch.from_numpy(value[None]) for name, value in item.items()}) for item in items]
    return torch.cat(rows).numpy()


def measure(encoder: Encoder, items: Sequence[Tensors], expected: Vectors, batches: Sequence[int], pad_id: int = 0) -> Parity:
    """Worst cosine and worst component over all ``batches``, each made of the first items (from the start again if they are too few).

    Raises `ParityError` on a result that is not finite.
    """
    cosine_min, max_abs = 1.0, 0.0
    for size in batches:
        rows = [n % len(items) for n in range(size)]
        try:
            vectors = encoder.encode(collate([items[n] for n in rows], pad_id))
        except InternalError as error:
            raise ParityError(f"at batch {size}: {error}") from error
        wanted = expected[rows]
        cosines = (vectors.astype(np.float64) * wanted).sum(axis=1) / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted, axis=1))
        cosine_min = min(cosine_min, float(cosines.min()))
        max_abs = max(max_abs, float(np.abs(vectors - wanted).max()))
    return Parity(
        reference=f"torch {torch.__version__} float32, batch 1",
        cosine_min=cosine_min,
        max_abs=max_abs,
        samples=len(items),
        batches=tuple(batches),
    )


def require(parity: Parity, floor: Floor, modality: str) -> None:
    """Raises `ParityError`."""
    # Written so that a NaN fails too.
    if not (parity.cosine_min >= floor.cosine_min and parity.max_abs <= floor.max_abs):
        raise ParityError(
            f"{modality}: the graph differs from the tower: cosine {parity.cosine_min:.6f} (at least {floor.cosine_min}), "
            f"component {parity.max_abs:.2e} (at most {floor.max_abs:.0e}) over batches {list(parity.batches)}"
        )
