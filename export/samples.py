"""Inputs to measure an exported graph with, when none are given: the same ones on every machine."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer

from bindery.decoded import Tensors
from bindery.spec import TextSpec
from export.source import TowerSource
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


def synthetic(source: TowerSource, tower: Tower, count: int, seed: int = 0) -> list[Tensors]:
    """``count`` items without batch axis: texts of 0 words to beyond the context length, or normal noise of the input's shape."""
    random = np.random.default_rng(seed)
    if isinstance(source.spec, TextSpec):
        return _texts(source, source.spec, count, random)
    (picture,) = tower.inputs
    shape = tuple(int(axis) for axis in picture.shape[1:])
    return [{picture.name: random.standard_normal(shape, dtype=np.float32)} for _ in range(count)]


def _texts(source: TowerSource, spec: TextSpec, count: int, random: np.random.Generator) -> list[Tensors]:
    assert source.tokenizer is not None, "a text source carries its tokenizer. This is a bug."
    tokenizer = Tokenizer.from_str(source.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec.context_length)
    lengths = np.linspace(0, 1.5 * spec.context_length, count).astype(int)
    random.shuffle(lengths)
    texts = [" ".join(random.choice(_WORDS, n)) for n in lengths]
    return [_tensors(tokenizer.encode(text).ids, spec) for text in texts]


def _tensors(ids: list[int], spec: TextSpec) -> Tensors:
    tensors: Tensors = {"input_ids": np.array(ids or [spec.pad_id], dtype=np.int64)}
    if spec.attention_mask:
        tensors["attention_mask"] = np.ones_like(tensors["input_ids"])
    return tensors
