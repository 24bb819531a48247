"""What a tower is worth on the items that were kept aside: zero-shot accuracy, and the prompts and logit scale that fit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bindery.decoded import Tensors
from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from training.data.batches import Decoder
from training.data.manifest import Item
from training.metrics import Share, fit_logit_scale, fit_min_similarity, top_k
from training.prompts import choose_prompts
from training.text import FrozenText
from training.towers.tower import Tower

_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """Zero-shot accuracy on the held-out items among their labels, what to ship, and below which cosine a label hardly fits."""

    accuracy: Share
    logit_scale: float
    prompts: tuple[str, ...]
    min_similarity: float | None = None


def judge(
    tower: Tower,
    text: FrozenText,
    judged: Decoder,
    prompts: Sequence[str],
    *,
    learned: float,
    calibrate: bool,
    device: str,
    unknown: bool = True,
    choose: bool = False,
) -> Verdict:
    """The tower is in eval mode.

    ``calibrate``: fit the scale on these items, and the cosine where ``unknown``. ``choose``: keep the prompts that serve best on them.
    """
    everything, every_vector = readable_vectors(tower, judged, device)
    labelled = [index for index, item in enumerate(everything) if item.label]
    items, vectors = [everything[index] for index in labelled], every_vector[labelled]
    labels = sorted({item.label for item in items})
    if not labels:
        return Verdict(Share(0, 0), learned, tuple(prompts))
    right = [labels.index(item.label) for item in items]
    said = text.arrays(expand_labels(labels, prompts)).reshape(len(labels), len(prompts), -1)  # (labels, prompts, d)
    chosen = choose_prompts(vectors, said, right, prompts) if choose else tuple(prompts)
    kept = said[:, [prompts.index(one) for one in chosen]]
    classes = label_vectors(kept.reshape(-1, kept.shape[2]), len(chosen))
    accuracy = top_k(vectors @ classes.T, right, 1)
    if not calibrate:
        return Verdict(accuracy, learned, chosen)
    least = fit_min_similarity(vectors, classes, right) if unknown else None
    return Verdict(accuracy, fit_logit_scale(vectors, classes, right), chosen, least)


@torch.no_grad()
def readable_vectors(tower: Tower, decoder: Decoder, device: str) -> tuple[list[Item], Vectors]:
    """The readable items and their ``(n, d)`` vectors. The tower is in eval mode."""
    # Alone, a vector is the same whatever else is judged; together they keep a GPU busy.
    size = _CHUNK if device.startswith("cuda") else 1
    items: list[Item] = []
    rows: list[Tensor] = []
    waiting: list[Tensors] = []
    for index, item in enumerate(decoder.items):
        if (tensors := decoder.tensors(index)) is not None:
            items.append(item)
            waiting.append(tensors)
        if waiting and (len(waiting) == size or index + 1 == len(decoder.items)):
            batch = {name: torch.from_numpy(np.stack([one[name] for one in waiting])).to(device) for name in waiting[0]}
            rows.append(tower(**batch).cpu())
            waiting = []
    return items, torch.cat(rows).numpy() if rows else np.empty((0, tower.dimension), dtype=np.float32)
