"""Distillation: a teacher's vectors, computed before, and three ways in which a tower can follow them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.data.manifest import Item

Key = Literal["id", "pair_id"]
"""The column of the manifest that a teacher's ids are found by; `pair_id`: a teacher that saw the same scene in another modality."""


class TeacherError(ValueError):
    """The teacher's vectors cannot be used. The message names the file."""


class Teacher:
    """Vectors of items by another model, in a space of its own or in ours."""

    def __init__(self, vectors: NDArray[Any], ids: Sequence[str], items: Iterable[Item], key: Key) -> None:
        """``vectors``: (m, d), row i of ``ids[i]``; may be mapped from a file, rows are read when asked for."""
        numbers = {id: number for number, id in enumerate(ids)}
        self._vectors = vectors
        self._rows = {item.id: numbers[name] for item in items if (name := str(getattr(item, key))) in numbers}

    @property
    def dimension(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def items(self) -> int:
        """How many items it has something to say about."""
        return len(self._rows)

    def of(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """``(k,)`` places in ``ids`` that it knows, ascending, and its ``(k, d)`` float32 rows for them, of any length."""
        known = [place for place, id in enumerate(ids) if id in self._rows]
        rows = np.asarray(self._vectors[[self._rows[ids[place]] for place in known]], dtype=np.float32)
        return torch.tensor(known, dtype=torch.long), torch.from_numpy(rows)


def load_teacher(path: Path, items: Iterable[Item], *, ids: Path | None = None, key: Key = "id") -> Teacher:
    """``path``: an .npz of `ids` and `vectors`, or an .npy of vectors with one id a line in ``ids`` (default: NAME.ids.txt).

    Raises `TeacherError`.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                missing = {"ids", "vectors"} - set(arrays.files)
                if missing:
                    raise TeacherError(f"{path} has no array {', '.join(sorted(missing))}")
                vectors, names = arrays["vectors"], [str(name) for name in arrays["ids"].tolist()]
        else:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            names = (ids or path.with_suffix(".ids.txt")).read_text(encoding="utf-8").splitlines()
    except TeacherError:
        raise
    except (OSError, ValueError) as error:
        raise TeacherError(f"{path} cannot be read: {error}") from error
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise TeacherError(f"{path} has vectors of shape {vectors.shape} for {len(names)} ids; it needs (ids, dimension)")
    if len(set(names)) < len(names):
        raise TeacherError(f"{path} has ids that stand there twice")
    teacher = Teacher(vectors, names, items, key)
    if teacher.items == 0:
        raise TeacherError(f"{path} has a vector for none of the items, by their {key}")
    return teacher


def cosine_loss(student: Tensor, teacher: Tensor, sure: Tensor | None = None) -> Tensor:
    """Mean of 1 - cosine, each times ``sure`` (n,) where given. Both ``(n, d)`` unit rows of one length."""
    apart = 1 - (student * teacher).sum(dim=1)
    return (apart if sure is None else sure * apart).mean()


def squared_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference, beside the teacher's mean square. Both ``(n, d)``, of any length."""
    return F.mse_loss(student, teacher) / teacher.square().mean().clamp(min=1e-6)


def tags_loss(logits: Tensor, scores: Tensor) -> Tensor:
    """Binary cross entropy of each class's logit to the teacher's score in 0..1; summed over the classes, mean over the items."""
    return F.binary_cross_entropy_with_logits(logits, scores, reduction="sum") / len(logits)


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines between different items. ``(n, d)`` and ``(n, e)`` unit rows, n > 1."""
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    return F.mse_loss((student @ student.T)[others], (teacher @ teacher.T)[others])


def similarity_loss(student: Tensor, teacher: Tensor, temperature: float, anchors: Tensor | None = None) -> Tensor:
    """KL divergence of the student's distribution over similarities from the teacher's, mean over the items.

    An item's distribution is the softmax of ``cosine / temperature`` to the other items (n > 1), or to ``anchors`` (m, d), vectors in
    a space that both share. ``student``: ``(n, d)``, ``teacher``: ``(n, e)`` unit rows.
    """
    if anchors is None:
        itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
        mine, theirs = _others(student @ student.T, itself), _others(teacher @ teacher.T, itself)  # (n, n - 1)
    else:
        mine, theirs = student @ anchors.T, teacher @ anchors.T  # (n, m)
    return F.kl_div(
        F.log_softmax(mine / temperature, dim=1), F.log_softmax(theirs / temperature, dim=1), reduction="batchmean", log_target=True
    )


def scores_loss(student: Tensor, scores: Tensor, temperature: float, texts: Tensor) -> Tensor:
    """KL divergence of the student's distribution over given texts from a tagger's, mean over the items: zero-shot, learned from tags.

    ``student``: ``(n, d)`` unit rows; ``scores``: ``(n, m)`` ≥ 0, shared out so that a row sums to 1; ``texts``: ``(m, d)`` unit rows.
    """
    taught = scores.clamp(min=0)
    taught = taught / taught.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return F.kl_div(F.log_softmax(student @ texts.T / temperature, dim=1), taught, reduction="batchmean")


def _others(cosines: Tensor, itself: Tensor) -> Tensor:
    return cosines[~itself].reshape(len(cosines), -1)
