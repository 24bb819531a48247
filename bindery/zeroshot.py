"""Zero-shot classification: labels become texts, texts become class vectors, cosines become probabilities.

Pure arithmetic on vectors; whoever calls it does the embedding. (Paper, section 4: class prompts.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bindery.errors import InvalidParameter
from bindery.vectors import Vectors, normalize


def expand_labels(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every label in every template, label-major: ``L * T`` texts. Raises `InvalidParameter` on an empty or broken list."""
    if isinstance(labels, str):  # else its letters would be the labels
        raise InvalidParameter(f"labels is one string; give a list, such as [{labels!r}]", pointer="/labels")
    if not labels:
        raise InvalidParameter("labels is empty; give at least one label", pointer="/labels")
    if not templates:
        raise InvalidParameter("template is empty; give at least one template with {}", pointer="/template")
    for index, label in enumerate(labels):
        if not label.strip():
            raise InvalidParameter(f"label {index} is blank", pointer=f"/labels/{index}")
    for index, template in enumerate(templates):
        if template.count("{}") != 1:
            raise InvalidParameter(f"template {template!r} needs exactly one {{}} where the label goes", pointer=f"/template/{index}")
    return [template.replace("{}", label) for label in labels for template in templates]


def label_vectors(text_vectors: Vectors, n_templates: int) -> Vectors:
    """``(L * T, d)`` unit text vectors → ``(L, d)``: the mean over a label's templates, normalised again."""
    dimension = text_vectors.shape[1]
    return normalize(text_vectors.reshape(-1, n_templates, dimension).mean(axis=1))  # (labels, templates, d) -> (labels, d)


def probabilities(vectors: Vectors, labels: Vectors, logit_scale: float) -> NDArray[np.float32]:
    """Softmax over the labels of ``logit_scale * cosine``: ``(n, d)``, ``(L, d)`` → ``(n, L)`` float32, rows sum to 1."""
    logits = logit_scale * (vectors.astype(np.float64) @ labels.astype(np.float64).T)
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def unknown(vectors: Vectors, labels: Vectors, min_similarity: float) -> NDArray[np.bool_]:
    """Whether none of the labels fits: ``(n, d)``, ``(L, d)`` → ``(n,)``.

    A hint beside the probabilities, which sum to 1 over any labels, also over wrong ones.
    """
    return np.asarray((vectors @ labels.T).max(axis=1) < min_similarity)
