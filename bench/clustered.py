"""Vectors as encoders of several modalities give them: clustered, and with a gap between the modalities.

An "image" is a cone's mean (45 % of the squared norm), what it shows (27 %, 192 dimensions: topics by Zipf's law, subtopics, noise,
on a spectrum that falls by a power), and what only pictures have (28 %, 384 dimensions: styles and noise). A "text" has a cone of
its own, a noisy copy of the same content, and its own private part. The figures that result (`Clustered.figures`) are those of
CLIP-like encoders; they are written beside every result. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIMENSION = 768
TOP = 10
_AT_ONCE = 20_000
_TOPICS, _SUBTOPICS, _STYLES = 2000, 10, 400
_CONTENT, _PRIVATE = 192, 384
_SPECTRUM = np.arange(1, _CONTENT + 1, dtype=np.float32) ** -1.15
_SCALE = np.sqrt(_SPECTRUM / _SPECTRUM.sum())
_GAP = 0.22  # cosine of the two cones' means
_AGREEMENT = 0.65  # how much of a picture's content its text has

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Content:
    topic: NDArray[np.int64]
    latent: Floats  # (n, 192)


class World:
    """Draws images and texts of one space."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        basis = np.linalg.qr(self.random.standard_normal((DIMENSION, DIMENSION)))[0].T.astype(np.float32)
        self._image_cone = basis[0]
        self._text_cone = _GAP * basis[0] + np.sqrt(1 - _GAP**2) * basis[1]
        self._content, self._image_private, self._text_private = np.split(basis[2:], [_CONTENT, _CONTENT + _PRIVATE])
        self._topics = self._normal(_TOPICS, _CONTENT) * _SCALE
        self._subtopics = self._normal(_TOPICS * _SUBTOPICS, _CONTENT) * _SCALE
        self._styles = self._normal(_STYLES, _PRIVATE) / np.sqrt(np.float32(_PRIVATE))
        chances = 1 / np.arange(1, _TOPICS + 1)
        self._chances = chances / chances.sum()

    def content(self, count: int) -> Content:
        topic = self.random.choice(_TOPICS, count, p=self._chances)
        subtopic = topic * _SUBTOPICS + self.random.integers(0, _SUBTOPICS, count)
        noise = self._normal(count, _CONTENT) * _SCALE
        latent = 0.4**0.5 * self._topics[topic] + 0.3**0.5 * self._subtopics[subtopic] + 0.3**0.5 * noise
        return Content(topic, latent.astype(np.float32))

    def images(self, content: Content) -> Floats:
        count = len(content.topic)
        style = self._styles[self.random.integers(0, _STYLES, count)]
        private = 0.5**0.5 * style + 0.5**0.5 * self._normal(count, _PRIVATE) / np.sqrt(np.float32(_PRIVATE))
        return _unit(0.45**0.5 * self._image_cone + 0.27**0.5 * content.latent @ self._content + 0.28**0.5 * private @ self._image_private)

    def texts(self, content: Content) -> Floats:
        count = len(content.topic)
        latent = _AGREEMENT * content.latent + (1 - _AGREEMENT**2) ** 0.5 * self._normal(count, _CONTENT) * _SCALE
        width = len(self._text_private)
        private = self._normal(count, width) / np.sqrt(np.float32(width))
        return _unit(0.55**0.5 * self._text_cone + 0.20**0.5 * latent @ self._content + 0.25**0.5 * private @ self._text_private)

    def topics_by_nearness(self, topic: int) -> NDArray[np.int64]:
        """All topics, those most like ``topic`` first."""
        return np.argsort(-(self._topics @ self._topics[topic]), kind="stable")

    def _normal(self, *shape: int) -> Floats:
        return self.random.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Clustered:
    """Stored images in a file, and queries of both kinds with their true neighbours."""

    world: World
    path: Path
    rows: int
    topic: NDArray[np.int64]  # of each stored image
    captions: Floats  # texts of the first stored images
    queries: dict[str, Floats]  # same: new images; cross: texts of stored images
    query_topic: dict[str, NDArray[np.int64]]
    truth: dict[str, NDArray[np.int64]]  # (queries, 10) rows by exact inner product with the stored float16 values
    figures: dict[str, float]

    def pieces(self) -> Iterator[tuple[int, Floats]]:
        """The stored images, some at a time, with the number of the first."""
        return stored(self.path, self.rows)


def stored(path: Path, rows: int) -> Iterator[tuple[int, Floats]]:
    """Read and not mapped, so that a measured process holds only what it keeps."""
    for start in range(0, rows, _AT_ONCE):
        count = min(_AT_ONCE, rows - start)
        data = np.fromfile(path, dtype="<f2", count=count * DIMENSION, offset=start * DIMENSION * 2)
        yield start, data.reshape(count, DIMENSION).astype(np.float32)


def make(folder: Path, rows: int, queries: int, captions: int, seed: int = 0) -> Clustered:
    """Draw it, write the images to ``folder``, find the true neighbours."""
    world = World(seed)
    path = folder / "images.f16"
    topics, texts_of, captioned = [], [], []
    described = np.sort(world.random.choice(rows, queries, replace=False))
    with path.open("wb") as file:
        for start in range(0, rows, _AT_ONCE):
            content = world.content(min(_AT_ONCE, rows - start))
            world.images(content).astype("<f2").tofile(file)
            topics.append(content.topic)
            own = described[(described >= start) & (described < start + len(content.topic))] - start
            texts_of.append(world.texts(Content(content.topic[own], content.latent[own])))
            if start < captions:
                few = slice(0, min(captions - start, len(content.topic)))
                captioned.append(world.texts(Content(content.topic[few], content.latent[few])))
    fresh = world.content(queries)
    asked = {"same": world.images(fresh), "cross": np.concatenate(texts_of)}
    topic = np.concatenate(topics)
    truth = {kind: _nearest(path, rows, vectors) for kind, vectors in asked.items()}
    figures = _figures(path, rows, asked, truth, described)
    about = {"same": fresh.topic, "cross": topic[described]}
    return Clustered(world, path, rows, topic, np.concatenate(captioned), asked, about, truth, figures)


def scores(path: Path, rows: int, queries: Floats) -> Floats:
    """Of every stored image with every query: ``(queries, rows)``."""
    out = np.empty((len(queries), rows), dtype=np.float32)
    for start, piece in stored(path, rows):
        out[:, start : start + len(piece)] = queries @ piece.T
    return out


def best(found: Floats) -> NDArray[np.int64]:
    """The ten best columns of each row, best first."""
    few = np.argpartition(-found, TOP, axis=1)[:, :TOP] if found.shape[1] > TOP else np.argsort(-found, axis=1)
    order = np.argsort(-np.take_along_axis(found, few, axis=1), axis=1)
    return np.take_along_axis(few, order, axis=1)


def recall(found: list[list[int]], truth: NDArray[np.int64]) -> float:
    return float(np.mean([len(set(own) & set(wanted.tolist())) / len(wanted) for own, wanted in zip(found, truth, strict=True)]))


def _nearest(path: Path, rows: int, queries: Floats) -> NDArray[np.int64]:
    return np.concatenate([best(scores(path, rows, queries[at : at + 100])) for at in range(0, len(queries), 100)])


def _figures(
    path: Path, rows: int, asked: dict[str, Floats], truth: dict[str, NDArray[np.int64]], described: NDArray[np.int64]
) -> dict[str, float]:
    few = np.memmap(path, dtype="<f2", mode="r", shape=(rows, DIMENSION))
    some = few[: min(rows, 2000)].astype(np.float32)
    pairs = some @ some.T
    unmatched = asked["cross"] @ some.T
    matched = np.einsum("nd,nd->n", asked["cross"], few[described].astype(np.float32))
    nearest = np.einsum("nd,nd->n", asked["same"], few[truth["same"][:, 0]].astype(np.float32))
    ranks = truth["cross"] == described[:, None]
    told = {
        "image_image_cosine": pairs[np.triu_indices(len(some), 1)].mean(),
        "image_image_nearest": nearest.mean(),
        "text_image_unmatched": unmatched.mean(),
        "text_image_unmatched_sd": unmatched.std(),
        "text_image_matched": matched.mean(),
        "text_image_r_at_1": ranks[:, 0].mean(),
        "text_image_r_at_10": ranks.any(axis=1).mean(),
    }
    return {name: round(float(value), 3) for name, value in told.items()}


def _unit(rows: Floats) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
