"""Which templates a tower is served with: chosen on items that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bindery.vectors import Vectors
from bindery.zeroshot import label_vectors
from training.metrics import fit_logit_scale, negative_log_likelihood

_ALIKE = 0.01
"""Losses that differ by less, as a share, are told apart by the draw of the items that were kept aside."""


def choose_prompts(vectors: Vectors, said: NDArray[np.float32], right: Sequence[int], prompts: Sequence[str]) -> tuple[str, ...]:
    """Those of ``prompts`` under whose mean the right labels are most probable; of sets that are alike, the largest.

    ``vectors`` (n, d) of labelled items, ``said`` (labels, prompts, d): each label in each template, ``right`` (n): the label of each item.
    From all of them on, the one is left out without which the labels are most probable, until one is left; each set is judged at the
    logit scale that fits it. The largest, because users will ask for other labels, to which several wordings are fairer than one.
    """
    kept = list(range(len(prompts)))
    path = [(_loss(vectors, said, right, kept), kept)]
    while len(kept) > 1:
        path.append(min((_loss(vectors, said, right, rest), rest) for rest in ([one for one in kept if one != left] for left in kept)))
        kept = path[-1][1]
    least = min(loss for loss, _ in path)
    chosen = next(kept for loss, kept in path if loss <= least * (1 + _ALIKE))
    return tuple(prompts[one] for one in chosen)


def _loss(vectors: Vectors, said: NDArray[np.float32], right: Sequence[int], kept: Sequence[int]) -> float:
    classes = label_vectors(said[:, kept].reshape(-1, said.shape[2]), len(kept))
    return negative_log_likelihood(vectors, classes, right, fit_logit_scale(vectors, classes, right))
