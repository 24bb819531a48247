"""What a tower is worth on the items that were kept aside: zero-shot accuracy, and the logit scale that fits it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from training.data.batches import Decoder
from training.data.manifest import Item
from training.metrics import Share, fit_logit_scale, top_k
from training.text import FrozenText
from training.towers.tower import Tower


def judge(
    tower: Tower, text: FrozenText, judged: Decoder, prompts: Sequence[str], *, learned: float, calibrate: bool, device: str
) -> tuple[Share, float]:
    """Zero-shot accuracy on the held-out items among their labels, and the logit scale to ship. The tower is in eval mode."""
    items, vectors = _vectors(tower, judged, device)
    labels = sorted({item.label for item in items})
    if not labels:
        return Share(0, 0), learned
    classes = label_vectors(text.arrays(expand_labels(labels, prompts)), len(prompts))
    right = [labels.index(item.label) for item in items]
    accuracy = top_k(vectors @ classes.T, right, 1)
    return accuracy, fit_logit_scale(vectors, classes, right) if calibrate else learned


@torch.no_grad()
def _vectors(tower: Tower, decoder: Decoder, device: str) -> tuple[list[Item], Vectors]:
    """The readable items that have a label, and their vectors."""
    labelled = [index for index, item in enumerate(decoder.items) if item.label]
    read = [(decoder.items[index], tensors) for index in labelled if (tensors := decoder.tensors(index)) is not None]
    rows = [tower(**{name: torch.from_numpy(array)[None].to(device) for name, array in tensors.items()}) for _, tensors in read]
    return [item for item, _ in read], torch.cat(rows).cpu().numpy() if rows else np.empty((0, tower.dimension), dtype=np.float32)
