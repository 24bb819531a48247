"""The figures of the paper's tables: zero-shot accuracy, retrieval in both directions, pairs with no text between. Vectors in, rows out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bindery.vectors import Vectors
from training.evaluation.encoders import Encodes, Remembered
from training.evaluation.layouts import read_samples
from training.evaluation.samples import Sample
from training.evaluation.task import Task
from training.metrics import Share, average_precision, calibration_error, median_rank, recall_at, top_k

_UNFITTED = 100.0
"""What CLIP's learned scale is clamped to: the probabilities of who fits nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure with what it was measured on. ``value``: a share of 1, a mean average precision, or a rank."""

    task: str
    modality: str
    figure: str
    value: float
    interval: tuple[float, float] | None
    n: int
    among: int
    chance: float | None
    skipped: int
    hits: int | None = None


@dataclass(frozen=True, slots=True)
class Confusion:
    """``counts[i, j]``: items of label i that were called label j."""

    task: str
    labels: tuple[str, ...]
    counts: NDArray[np.int64]


@dataclass
class Measured:
    rows: list[Row] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def measure(encoder: Encodes, tasks: Sequence[Task], data: Path, *, report: Callable[[str], None] = lambda _: None) -> Measured:
    """All figures of all tasks whose modalities there are. Unreadable files are counted. Raises `TaskError`, `ManifestError`."""
    vectors, measured = Remembered(encoder), Measured()
    for task in tasks:
        missing = {task.modality, task.pair or task.modality} - set(encoder.modalities)
        if missing:
            measured.left_out.append(f"{task.name} (no {', '.join(sorted(missing))})")
            continue
        report(task.name)
        one = _One(task, read_samples(task, data), vectors)
        for figure in task.figures:
            match figure:
                case "top":
                    rows, confusion = one.top()
                    measured.confusions.append(confusion)
                case "paraphrase":
                    rows = one.paraphrase()
                case "calibration":
                    rows = one.calibration()
                case "map":
                    rows = one.mean_average_precision()
                case "retrieval":
                    rows = one.retrieval()
                case "pairs":
                    rows = one.pairs()
            measured.rows += rows
    measured.errors = vectors.errors
    return measured


class _One:
    """One task's samples and their vectors."""

    def __init__(self, task: Task, samples: Sequence[Sample], vectors: Remembered) -> None:
        self.task = task
        self.samples = samples
        self.vectors = vectors
        self.place = f"{task.layout} {sorted(task.where.items())}"

    def media(self, modality: str) -> tuple[list[Sample], Vectors]:
        return self.vectors.media(self.place, modality, self.samples, self.task.options.get(modality, {}))

    def row(self, figure: str, share: Share, among: int, chance: float | None, read: int) -> Row:
        task, wanted = self.task, len(self.samples)
        return Row(task.name, task.modality, figure, share.value, share.interval, share.n, among, chance, wanted - read, share.hits)

    def beside_labels(self) -> tuple[list[Sample], tuple[str, ...], Vectors, Vectors]:
        """Readable samples, all labels and the task's further ones in alphabetical order, ``(samples, d)``, ``(labels, d)``."""
        labels = tuple(sorted({label for sample in self.samples for label in sample.labels} | set(self.task.among)))
        read, found = self.media(self.task.modality)
        templates = self.task.templates or self.vectors.encoder.prompts(self.task.modality)
        words = [self.task.names.get(label, label) for label in labels]
        return read, labels, found, self.vectors.labels(words, templates)

    def against_labels(self) -> tuple[list[Sample], tuple[str, ...], NDArray[np.float32]]:
        """Of `beside_labels` the samples, the labels and the cosines ``(samples, labels)``."""
        read, labels, found, words = self.beside_labels()
        return read, labels, found @ words.T

    def top(self) -> tuple[list[Row], Confusion]:
        read, labels, scores = self.against_labels()
        right = [labels.index(sample.labels[0]) for sample in read]
        rows = [self.row(f"top-{k}", top_k(scores, right, k), len(labels), min(1.0, k / len(labels)), len(read)) for k in (1, 5)]
        counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
        np.add.at(counts, (np.asarray(right, dtype=int), scores.argmax(axis=1)), 1)
        return rows, Confusion(self.task.name, labels, counts)

    def paraphrase(self) -> list[Row]:
        """Texts against texts: how often a sample's words are nearest to its own label's."""
        labels = tuple(sorted({label for sample in self.samples for label in sample.labels} | set(self.task.among)))
        said = [(caption, labels.index(sample.labels[0])) for sample in self.samples for caption in sample.captions]
        words = self.vectors.labels([self.task.names.get(label, label) for label in labels], self.task.templates or ("{}",))
        scores = self.vectors.texts([caption for caption, _ in said]) @ words.T
        right = [label for _, label in said]
        chances = [(k, min(1.0, k / len(labels))) for k in (1, 5)]
        return [self.row(f"top-{k}", top_k(scores, right, k), len(labels), chance, len(self.samples)) for k, chance in chances]

    def calibration(self) -> list[Row]:
        """Whether probabilities mean what they say, and what the hint of an unknown item is worth.

        The hint is measured on the same items twice: with their own label among those offered, and without it.
        """
        read, labels, found, words = self.beside_labels()
        right = [labels.index(sample.labels[0]) for sample in read]
        scale, least = self.vectors.encoder.calibration(self.task.modality)
        rows = []
        for figure, at in (("calibration error", scale), (f"calibration error at scale {_UNFITTED:.0f}", _UNFITTED)):
            if at is not None and read:
                error, skipped = calibration_error(found, words, right, at), len(self.samples) - len(read)
                rows.append(Row(self.task.name, self.task.modality, figure, error, None, len(read), len(labels), None, skipped))
        if least is not None and len(labels) > 1:
            scores = found @ words.T
            with_label = scores.max(axis=1)
            scores[np.arange(len(read)), right] = -np.inf
            known = Share(int((with_label >= least).sum()), len(read))
            noticed = Share(int((scores.max(axis=1) < least).sum()), len(read))
            rows.append(self.row("not called unknown, own label offered", known, len(labels), None, len(read)))
            rows.append(self.row("called unknown, own label not offered", noticed, len(labels) - 1, None, len(read)))
        return rows

    def mean_average_precision(self) -> list[Row]:
        read, labels, scores = self.against_labels()
        belongs = np.array([[label in sample.labels for label in labels] for sample in read], dtype=bool).reshape(len(read), len(labels))
        value = average_precision(scores, belongs)
        return [
            Row(
                self.task.name,
                self.task.modality,
                "mAP",
                value,
                None,
                len(read),
                len(labels),
                float(belongs.mean(axis=0)[belongs.any(axis=0)].mean()) if belongs.any() else 0.0,
                len(self.samples) - len(read),
            )
        ]

    def retrieval(self) -> list[Row]:
        """Captions find their items and items their captions. Several items may have one caption: each of them is right."""
        read, found = self.media(self.task.modality)
        captions = list(dict.fromkeys(caption for sample in read for caption in sample.captions))
        if not captions:
            return []
        position = {caption: column for column, caption in enumerate(captions)}
        together = np.zeros((len(read), len(captions)), dtype=bool)  # (items, captions)
        for line, sample in enumerate(read):
            together[line, [position[caption] for caption in sample.captions]] = True
        scores = found @ self.vectors.texts(captions).T
        rows = self.ranked("caption → item", scores.T, together.T, len(read))
        return rows + self.ranked("item → caption", scores, together, len(read))

    def pairs(self) -> list[Row]:
        """The paper's emergent retrieval (section 5.3): found by another modality, though no pair of the two was trained on."""
        assert self.task.pair is not None
        left, queries = self.media(self.task.modality)
        right, candidates = self.media(self.task.pair)
        both = {sample.id for sample in left} & {sample.id for sample in right}
        one = queries[[line for line, sample in enumerate(left) if sample.id in both]]
        other = candidates[[line for line, sample in enumerate(right) if sample.id in both]]
        same = np.eye(len(both), dtype=bool)
        rows = self.ranked(f"{self.task.modality} → {self.task.pair}", one @ other.T, same, len(both))
        return rows + self.ranked(f"{self.task.pair} → {self.task.modality}", other @ one.T, same, len(both))

    def ranked(self, name: str, scores: NDArray[Any], together: NDArray[np.bool_], read: int) -> list[Row]:
        asked = together.any(axis=1)  # a query that nothing belongs to has no right answer
        scores, together = scores[asked], together[asked]
        if not len(scores):
            return []
        among = scores.shape[1]
        rows = [self.row(f"{name}, R@{k}", recall_at(scores, together, k), among, _chance(together, k), read) for k in (1, 5, 10)]
        rank = median_rank(scores, together)
        middle = float(np.median((among + 1) / (together.sum(axis=1) + 1)))
        skipped = len(self.samples) - read
        return [*rows, Row(self.task.name, self.task.modality, f"{name}, median rank", rank, None, len(scores), among, middle, skipped)]


def _chance(together: NDArray[np.bool_], k: int) -> float:
    """That k drawn at random hold one of a query's own, on average over the queries."""
    among = together.shape[1]
    wrong = among - together.sum(axis=1)
    missed = np.prod([np.maximum(wrong - i, 0) / (among - i) for i in range(min(k, among))], axis=0)
    return float(1 - missed.mean())
