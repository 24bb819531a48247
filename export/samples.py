"""Inputs to measure an exported graph with: the user's own files, or synthetic ones that are the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bindery.bundle import TensorInfo
from bindery.decoded import Tensors
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.prepare.tokens import TextTokenizer
from bindery.spec import Spec, TextSpec
from export.errors import ExportUsageError
from training.towers.tower import Tower

_WORDS = [
    "a",
    "the",
    "of",
    "dog",
    "barks",
    "rain",
    "street",
    "night",
    "music",
    "two",
    "people",
    "walk",
    "red",
    "quiet",
    "heat",
    "near",
    "far",
]


def synthetic(spec: Spec, tower: Tower, count: int, tokenizer: Path, seed: int = 0) -> list[Tensors]:
    """``count`` items without batch axis: texts of no words to beyond the context length, or normal noise of the input's shape."""
    if isinstance(spec, TextSpec):
        random = np.random.default_rng(seed)
        lengths = np.linspace(0, 1.5 * spec.context_length, count).astype(int)
        random.shuffle(lengths)
        return _tokens([" ".join(random.choice(_WORDS, n)) for n in lengths], spec, tokenizer)
    return noise(tower.inputs, count, seed)


def noise(inputs: Sequence[TensorInfo], count: int, seed: int = 0) -> list[Tensors]:
    """``count`` items of normal noise for a graph that takes one picture of a fixed shape."""
    random = np.random.default_rng(seed)
    (picture,) = inputs
    shape = tuple(int(axis) for axis in picture.shape[1:])
    return [{picture.name: random.standard_normal(shape, dtype=np.float32)} for _ in range(count)]


def from_files(spec: Spec, place: Path, tokenizer: Path) -> list[Tensors]:
    """The lines of a text file, or every file of a folder, prepared as serving will prepare them.

    Raises `ExportUsageError` when there is nothing, and the media errors of the kind.
    """
    if isinstance(spec, TextSpec):
        items = _tokens(place.read_text(encoding="utf-8").splitlines(), spec, tokenizer)
    else:
        prepare, options = KINDS[spec.kind].prepare, parse_options(spec.kind, {})
        assert prepare is not None, f"kind {spec.kind} has no way from a file to a tensor. This is a bug."
        files = sorted(path for path in place.iterdir() if path.is_file())
        items = [prepare(Source.of(path), spec, options, Limits()).tensors for path in files]
    if not items:
        raise ExportUsageError(f"--samples: {place} holds nothing to measure with")
    return items


def _tokens(texts: list[str], spec: TextSpec, tokenizer: Path) -> list[Tensors]:
    encode = TextTokenizer(tokenizer, spec).encode
    return [encode(text).tensors for text in texts]
