"""YAMNet as a teacher of sounds: scores of its 521 classes, its pooled feature, and what its scores say in text vectors.

The file is the project's training input, never part of it. Its 8-bit graph runs in LiteRT (`pip install --no-deps ai-edge-litert`).
"""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SILENCE = "Silence"
BEST = 5


class Yamnet:
    """One log-mel patch at a time: natural logarithm of 64 mel magnitudes + 0.001, 96 frames of 10 ms."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # only those who make the starter need it

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keeping all tensors is how the feature is read; it asks whether that is meant
            self._run: Any = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
            self._run.allocate_tensors()
        self._input = self._run.get_input_details()[0]["index"]
        self._scores = self._run.get_output_details()[0]["index"]
        (pooled,) = [tensor for tensor in self._run.get_tensor_details() if tensor["name"].endswith("reduce_mean")]
        self._feature, (self._scale, self._zero) = pooled["index"], pooled["quantization"]

    def __call__(self, patches: Floats) -> tuple[Floats, Floats]:
        """``(n, 64, 96)`` → scores ``(n, 521)`` in 0..1 and features ``(n, 1024)``."""
        scores, features = [], []
        for patch in patches:
            self._run.set_tensor(self._input, np.ascontiguousarray(patch.T[None], dtype=np.float32))
            self._run.invoke()
            scores.append(self._run.get_tensor(self._scores)[0])
            features.append((self._run.get_tensor(self._feature).reshape(-1).astype(np.float32) - self._zero) * self._scale)
        return np.stack(scores), np.stack(features)


def class_names(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]


def said_in_text(scores: Floats, names: list[str], vectors: Floats) -> Floats:
    """ConSE: the text vectors of the likeliest classes, mixed by their scores. ``(n, 521)`` → ``(n, d)``, as long as the teacher is sure.

    The length of a row is the best score. Quiet patches are tagged as silence whatever they hold, so that class has no say.
    """
    heard = scores.copy()
    heard[:, names.index(SILENCE)] = 0
    best = np.argsort(heard, axis=1)[:, -BEST:]
    shares = np.take_along_axis(heard, best, axis=1)
    mixed = np.einsum("nk,nkd->nd", shares, vectors[best])
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(mixed / np.maximum(length, 1e-9) * shares.max(axis=1, keepdims=True), dtype=np.float32)
