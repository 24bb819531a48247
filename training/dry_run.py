"""A dry run: everything is read, one batch is decoded and goes through the tower, no step is taken and nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from training.assembly import Places, assemble
from training.data.batches import MediaBatches, captions_of
from training.features import HeadedTower
from training.feed import TowerAndFeatures, WholeTower
from training.losses import positives
from training.recipe import Recipe, RecipeError


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would work on. ``shapes``: of the first batch's inputs, and of its vectors."""

    items: int
    aside: int
    labels: int
    captions: int
    """Different captions, templates included."""
    steps: int
    epochs: int | float
    trained: int
    """Numbers that learn, adapters included."""
    parameters: int
    shapes: dict[str, tuple[int, ...]]
    examples: tuple[tuple[str, str], ...]
    """Ids of some of the batch's items, and the captions that they drew."""
    loss: dict[str, float]
    skipped: dict[str, str]
    """Items of the first batch that could not be read, and why."""


@torch.no_grad()
def dry_run(recipe: Recipe, places: Places, *, device: str = "cpu") -> DryRun:
    """Raises what `training.trainer.train` raises before its first step, and `RecipeError` when the first batch has no readable item."""
    parts = assemble(recipe, places, device=device)
    media = MediaBatches(
        parts.decoder,
        batch=recipe.optim.batch,
        seed=recipe.seed,
        how=recipe.augment,
        templates=recipe.data.templates,
        threads=recipe.data.threads,
    )
    batch = next(media.epoch(0))
    if not batch.captions:
        raise RecipeError(f"{recipe.name}: no item of the first batch could be read: {next(iter(parts.decoder.skipped.values()))}")
    tower = parts.tower.eval()
    size = recipe.compute.chunk or len(batch.captions)
    starts = range(0, len(batch.captions), size)
    encode = TowerAndFeatures(cast(HeadedTower, tower)) if parts.objective.wants_features else WholeTower(tower)
    rows = [encode({name: tensor[at : at + size].to(device) for name, tensor in batch.inputs.items()}) for at in starts]
    vectors = torch.cat(rows)
    together = positives(batch.captions, batch.labels, recipe.loss.positives).to(device)
    _, loss = parts.objective(vectors, parts.text.vectors(batch.captions), together, batch.ids)
    items = parts.decoder.items
    return DryRun(
        items=len(items),
        aside=len(parts.aside),
        labels=len({item.label for item in items if item.label}),
        captions=len({caption for item in items for caption in captions_of(item, recipe.data.templates)}),
        steps=max(1, round(recipe.optim.epochs * -(-media.steps // recipe.compute.accumulate))),
        epochs=recipe.optim.epochs,
        trained=sum(parameter.numel() for parameter in tower.parameters() if parameter.requires_grad),
        parameters=sum(parameter.numel() for parameter in tower.parameters()),
        shapes={name: tuple(tensor.shape) for name, tensor in batch.inputs.items()} | {"vectors": (len(vectors), tower.dimension)},
        examples=tuple(zip(batch.ids, batch.captions, strict=True))[:3],
        loss=loss,
        skipped=dict(parts.decoder.skipped),
    )
