"""The layout `manifest`: the project's own (docs/training.md), files loose or in tar shards.

`where`: {manifests: {modality: file}, split, source, label}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from training.data.manifest import Item, read_manifest
from training.data.shards import Files
from training.evaluation.samples import Opener, Sample


class Manifests(BaseModel):
    """With several manifests a sample is what they have under one `pair_id`; labels and captions are the first one's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifests: dict[str, str]
    split: str | None = "val"
    source: str | None = None
    labels: tuple[str, ...] = ()
    """Only items of these labels; none: of all."""
    label: str = "label"
    """The column that says what an item is called; items without a word in it are left out where it is another than `label`."""


def manifest_samples(data: Path, where: Mapping[str, Any]) -> Iterator[Sample]:
    """Raises `ManifestError`."""
    wanted, files = Manifests.model_validate(where), Files()

    def items(manifest: str) -> list[Item]:
        read = read_manifest(data / manifest, split=wanted.split, label=wanted.label)
        found = [item for item in read if wanted.source in (None, item.source) and (item.label or wanted.label == "label")]
        return [item for item in found if not wanted.labels or item.label in wanted.labels]

    (first, manifest), *others = wanted.manifests.items()
    rest = {modality: {item.pair_id: item for item in items(other) if item.pair_id} for modality, other in others}
    for item in items(manifest):
        if others and not item.pair_id:
            continue
        media: dict[str, Opener] = {first: partial(files.source, item)}
        media |= {modality: partial(files.source, pairs[item.pair_id]) for modality, pairs in rest.items() if item.pair_id in pairs}
        yield Sample(id=item.id, media=media, labels=(item.label,) if item.label else (), captions=item.captions)
