"""Features of a frozen trunk, computed once: training a head then takes seconds an epoch instead of minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.data.augment import Augment, augment
from training.data.batches import Batch, Decoder, draw_caption, epoch_order, item_rng, steps_of
from training.data.manifest import Item

FEATURES = "features"
_CHUNK = 8  # more at once only spills out of the cache


class HeadedTower(Protocol):
    """A tower in two parts: ``unit(head(features(inputs)))`` is its vector."""

    head: nn.Module

    def features(self, pixel_values: Tensor) -> Tensor: ...


class FeatureBatches:
    """Batches of cached features; each epoch draws one of an item's views."""

    def __init__(self, items: Sequence[Item], views: Tensor, *, batch: int, seed: int, templates: Sequence[str] = ()) -> None:
        """``views``: (items, views, ...) as `feature_views` gives them."""
        self._items = items
        self._views = views
        self._batch = batch
        self._seed = seed
        self._templates = templates
        self.steps = steps_of(len(items), batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        order = epoch_order(len(self._items), self._seed, number)
        for step in range(self.steps):
            chosen = order[step * self._batch : (step + 1) * self._batch]
            rngs = [item_rng(self._seed, number, int(index)) for index in chosen]
            views = [rng.integers(self._views.shape[1]) for rng in rngs]
            items = [self._items[index] for index in chosen]
            captions = tuple(draw_caption(item, self._templates, rng) for item, rng in zip(items, rngs, strict=True))
            features = self._views[torch.from_numpy(chosen), torch.tensor(views)]
            yield Batch({FEATURES: features}, captions, tuple(item.label for item in items))


@torch.no_grad()
def feature_views(
    tower: HeadedTower, decoder: Decoder, *, views: int, how: Augment, seed: int, device: str, report: Callable[[int], None]
) -> tuple[list[Item], Tensor]:
    """The readable items, and their features ``(items, views, frames, features)``. View 0 is the item as it is served.

    ``report`` is told the number of items done.
    """
    kept: list[Item] = []
    rows: list[Tensor] = []
    waiting: list[np.ndarray] = []

    def run() -> None:
        pixels = torch.from_numpy(np.concatenate(waiting)).to(device)  # (items * views, channels, ...)
        rows.append(tower.features(pixels).cpu().unflatten(0, (-1, views)))
        waiting.clear()

    for index, item in enumerate(decoder.items):
        tensors = decoder.tensors(index)
        report(index + 1)
        if tensors is None:
            continue
        pixels = tensors["pixel_values"]
        rngs = [np.random.default_rng([seed, index, view]) for view in range(1, views)]
        waiting.append(np.stack([pixels, *(augment(pixels, how, rng) for rng in rngs)]))
        kept.append(item)
        if len(waiting) * views >= _CHUNK:
            run()
    if waiting:
        run()
    return kept, torch.cat(rows) if rows else torch.empty(0)
