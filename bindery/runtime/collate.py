"""Items → one batch: pictures are stacked, texts padded to the longest text of the batch and no further; batches → pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bindery.decoded import Tensors


def collate(items: Sequence[Tensors], pad_id: int = 0) -> Tensors:
    """Per-item tensors (no batch axis) → batched tensors. ``pad_id`` fills ``input_ids``; masks are filled with 0."""
    names = items[0].keys()
    return {name: _stack([item[name] for item in items], pad_id if name == "input_ids" else 0) for name in names}


def pieces(tensors: Tensors, max_batch: int) -> Iterator[Tensors]:
    """A batch of any size as batches of at most ``max_batch``, in order."""
    rows = next(iter(tensors.values())).shape[0]
    for start in range(0, max(rows, 1), max_batch):
        yield {name: tensor[start : start + max_batch] for name, tensor in tensors.items()}


def snapped(tensors: Tensors, max_batch: int) -> Tensors:
    """The batch with its last row repeated up to the next of 1, 2, 3, 4, 6, 8, 12, 16, 24 ... rows, and at most ``max_batch``.

    For devices that keep something for each shape (buffers, kernels): there are few, and no more than a third is computed in vain.
    """
    rows = next(iter(tensors.values())).shape[0]
    missing = _bucket(rows, max_batch) - rows
    if missing <= 0:
        return tensors
    return {name: np.concatenate([tensor, np.repeat(tensor[-1:], missing, axis=0)]) for name, tensor in tensors.items()}


def _bucket(rows: int, max_batch: int) -> int:
    power = 1
    while power < rows:
        power *= 2
    between = power * 3 // 4 if power >= 4 else power
    return min(between if rows <= between else power, max(max_batch, rows))


def _stack(rows: list[np.ndarray], fill: int) -> np.ndarray:
    if rows[0].ndim != 1:
        return np.stack(rows)  # (batch, 3, ...)
    longest = max(row.shape[0] for row in rows)
    batch = np.full((len(rows), longest), fill, dtype=rows[0].dtype)  # (batch, tokens)
    for index, row in enumerate(rows):
        batch[index, : row.shape[0]] = row
    return batch
