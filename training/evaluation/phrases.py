"""The layout `phrases`: other words for labels, in the task's own file. No media.

`where`: {phrases: {label: [phrase, ...]}}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from training.evaluation.samples import Sample


class Phrases(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    phrases: dict[str, tuple[str, ...]]


def phrase_samples(_data: Path, where: Mapping[str, Any]) -> Iterator[Sample]:
    """One sample a phrase; nothing is read from the data directory."""
    for label, phrases in Phrases.model_validate(where).phrases.items():
        for phrase in phrases:
            yield Sample(id=phrase, media={}, labels=(label,), captions=(phrase,))
