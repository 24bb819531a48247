"""A sample: one thing of a benchmark, with its files by modality, its labels and its captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from bindery.media.source import Source

Opener: TypeAlias = Callable[[], Source]
"""Gives the file when it is needed: crops are cut then, and a benchmark of 20,000 pictures lies in no memory."""


@dataclass(frozen=True, slots=True)
class Sample:
    """``id`` is unique in its task. A label or caption may belong to many samples; each of them is then right."""

    id: str
    media: Mapping[str, Opener]
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
