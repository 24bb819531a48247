"""Features of a frozen trunk, computed once: training a head then takes seconds an epoch instead of minutes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.data.augment import Augment, augment
from training.data.batches import Batch, Decoder, draw_caption, epoch_draws, item_rng, steps_of
from training.data.manifest import Item

FEATURES = "features"
_CHUNK = 8
"""Pictures that go through the trunk at once; more only spill out of a processor's cache."""


class HeadedTower(Protocol):
    """A tower in two parts: ``unit(vector(features(inputs)))`` is its vector; of what is behind the features only ``head`` is trained."""

    head: nn.Module

    def features(self, pixel_values: Tensor) -> Tensor: ...

    def vector(self, features: Tensor) -> Tensor: ...

    def state_dict(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class FeatureViews:
    """The readable items of a decoder, in its order, and what the trunk sees in each."""

    items: tuple[Item, ...]
    features: Tensor  # (items, views, frames, features) float32; view 0 is the item as it is served
    skipped: dict[str, str]


class FeatureBatches:
    """Batches of cached features; each epoch draws one of an item's views."""

    def __init__(self, views: FeatureViews, *, batch: int, seed: int, templates: Sequence[str] = ()) -> None:
        self._items = views.items
        self._features = views.features
        self._batch = batch
        self._seed = seed
        self._templates = templates
        self.steps = steps_of(len(views.items), batch)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        draws = epoch_draws(self._items, self._seed, number)
        for step in range(start, self.steps):
            part = draws[step * self._batch : (step + 1) * self._batch]
            chosen = np.array([draw.index for draw in part])
            rngs = [item_rng(self._seed, number, draw.index, draw.again) for draw in part]
            views = [int(rng.integers(self._features.shape[1])) for rng in rngs]
            items = [self._items[index] for index in chosen]
            captions = tuple(draw_caption(item, self._templates, rng) for item, rng in zip(items, rngs, strict=True))
            features = self._features[torch.from_numpy(chosen), torch.tensor(views)]  # (batch, frames, features)
            yield Batch({FEATURES: features}, captions, tuple(item.label for item in items), tuple(item.id for item in items))


@torch.no_grad()
def feature_views(
    tower: HeadedTower, decoder: Decoder, *, views: int, how: Augment, seed: int, device: str, report: Callable[[int], None]
) -> FeatureViews:
    """Features of ``views`` views of every readable item. ``report`` is told the number of items done."""
    kept: list[Item] = []
    rows: list[Tensor] = []
    places: dict[tuple[Path, str | None, str], Tensor] = {}  # a file that is listed twice, with other words, is seen once
    for index, item in enumerate(decoder.items):
        place = (item.root, item.shard, item.path)
        tensors = None if place in places else decoder.tensors(index)
        if tensors is not None:
            pixels = tensors["pixel_values"]
            others = [augment(pixels, how, np.random.default_rng([seed, index, view])) for view in range(1, views)]
            batch = torch.from_numpy(np.stack([pixels, *others])).to(device)  # (views, channels, ...)
            places[place] = torch.cat([tower.features(chunk).cpu() for chunk in batch.split(_CHUNK)])
        if place in places:
            rows.append(places[place])
            kept.append(item)
        report(index + 1)
    return FeatureViews(tuple(kept), torch.stack(rows) if rows else torch.empty(0), dict(decoder.skipped))


def features_key(tower: HeadedTower, decoder: Decoder, meaning: str) -> str:
    """Names the features of these items under this trunk: equal keys mean equal features. ``meaning``: what else decides them."""
    digest = hashlib.sha256(meaning.encode())
    for item in decoder.items:
        digest.update(f"{item.root / (item.shard or '')}\0{item.path}\n".encode())
    for name, tensor in sorted(tower.state_dict().items()):
        if not name.startswith("head."):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def save_views(path: Path, views: FeatureViews) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {"items": json.dumps([item.id for item in views.items]), "skipped": json.dumps(views.skipped)}
    unfinished = path.with_suffix(".unfinished")  # else what a killed run left would be taken for whole by the next
    save_file({FEATURES: views.features.contiguous()}, unfinished, metadata=words)
    unfinished.replace(path)


def load_views(path: Path, items: Sequence[Item]) -> FeatureViews:
    """What `save_views` wrote for these items."""
    with safe_open(path, framework="pt") as file:
        words = file.metadata()
        features = file.get_tensor(FEATURES)
    known = {item.id: item for item in items}
    return FeatureViews(tuple(known[id] for id in json.loads(words["items"])), features, json.loads(words["skipped"]))
