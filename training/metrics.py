"""Figures of a tower: zero-shot accuracy, retrieval, the best logit scale. Vectors in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bindery.vectors import Vectors
from bindery.zeroshot import probabilities

_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Share:
    """Hits among n, with the 95 % Wilson interval (which stays sensible for few items and for shares near 0 and 1)."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.value, _Z95**2 / self.n
        centre = (p + z2 / 2) / (1 + z2)
        half = _Z95 * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n)) / (1 + z2)
        return max(0.0, centre - half), min(1.0, centre + half)


def top_k(scores: NDArray[np.float32], right: Sequence[int], k: int) -> Share:
    """``scores`` (n, labels): how often the right label is among the k best."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Share(int((best == np.asarray(right)[:, None]).any(axis=1).sum()), len(right))


def recall_at(scores: NDArray[np.float32], together: NDArray[np.bool_], k: int) -> Share:
    """``scores`` and ``together`` (queries, candidates): how often one that belongs to the query is among its k best."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Share(int(np.take_along_axis(together, best, axis=1).any(axis=1).sum()), len(scores))


def median_rank(scores: NDArray[np.float32], together: NDArray[np.bool_]) -> float:
    """``scores`` and ``together`` (queries, candidates): the median place, from 1, of the best candidate that belongs to its query."""
    best = np.where(together, scores, -np.inf).max(axis=1)
    return float(np.median((scores > best[:, None]).sum(axis=1) + 1))


def average_precision(scores: NDArray[np.float32], belongs: NDArray[np.bool_]) -> float:
    """``scores`` and ``belongs`` (items, labels): the average precision of each label's ranking; its mean over labels that occur."""
    found = []
    for label in np.flatnonzero(belongs.any(axis=0)):
        right = belongs[np.argsort(-scores[:, label], kind="stable"), label]
        found.append((np.cumsum(right)[right] / (np.flatnonzero(right) + 1)).mean())
    return float(np.mean(found)) if found else math.nan


def negative_log_likelihood(vectors: Vectors, labels: Vectors, right: Sequence[int], logit_scale: float) -> float:
    """Mean over the items of minus the log probability of the right label, nats."""
    chosen = probabilities(vectors, labels, logit_scale)[np.arange(len(right)), np.asarray(right)]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def calibration_error(vectors: Vectors, labels: Vectors, right: Sequence[int], logit_scale: float, bins: int = 10) -> float:
    """Expected calibration error: how far, on the mean over the items, the best label's probability is from how often it is right.

    Over ``bins`` of equal width, as Guo et al. (2017) define it.
    """
    chances = probabilities(vectors, labels, logit_scale)
    sure, hit = chances.max(axis=1), chances.argmax(axis=1) == np.asarray(right)
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    apart = np.bincount(bin_of, weights=hit - sure.astype(np.float64), minlength=bins)
    return float(np.abs(apart).sum() / len(right)) if len(right) else math.nan


def fit_min_similarity(vectors: Vectors, labels: Vectors, right: Sequence[int]) -> float | None:
    """The cosine that half of the items reach with the best wrong label, or, if less, 95 % of the rightly named with their own.

    Labels that were trained on stand higher than right labels that were not, so the first is what keeps those from being called
    unknown. None when there is one label, or none was named rightly.
    """
    scores, at = vectors @ labels.T, np.asarray(right)  # (n, labels)
    named = scores.argmax(axis=1) == at
    if scores.shape[1] < 2 or not named.any():
        return None
    own = np.quantile(scores[named].max(axis=1), 0.05)
    scores[np.arange(len(at)), at] = -np.inf
    return round(float(min(own, np.median(scores.max(axis=1)))), 4)


def fit_logit_scale(vectors: Vectors, labels: Vectors, right: Sequence[int]) -> float:
    """The multiplier in 1..100 under which the right labels are most probable: probabilities then mean what they say."""
    candidates = np.geomspace(1.0, 100.0, 241)
    return float(min(candidates, key=lambda scale: negative_log_likelihood(vectors, labels, right, float(scale))))
