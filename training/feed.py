"""From a recipe to its batches: which items, how they are split, and whether the tower sees media or kept features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from training.data.batches import Batches, Decoder, MediaBatches
from training.data.manifest import Item, read_manifest, without_licences
from training.data.webdataset import is_shards, read_shards
from training.features import FEATURES, FeatureBatches, HeadedTower, feature_views, features_key, load_views, save_views
from training.progress import Progress, Report
from training.ranks import Ranks
from training.recipe import Balance, Recipe, RecipeError
from training.towers.tower import Tower, unit


def read_items(recipe: Recipe, media: Path, split: str) -> list[Item]:
    """The items of a split that the recipe may use. Raises `RecipeError` when there is none, `ManifestError`."""
    data = recipe.data
    path = media / data.manifest
    if is_shards(data.manifest):
        # Shards need not say their split: those that do not are all for training.
        everything = [item for item in read_shards(path, member=data.member) if (item.split or data.split) == split]
    else:
        everything = read_manifest(path, split=split, wordless=data.wordless is not None)
    ours = [item for item in everything if data.modality in (None, item.modality) and item.weight > 0]
    items = [item for item in without_licences(ours, data.skip_licences) if item.label not in data.skip_labels]
    if not items:
        which = f" and modality {data.modality!r}" if data.modality else ""
        raise RecipeError(f"{path} has no item of split {split!r}{which} with a licence that may be used")
    return balanced(items, data.balance, data.wordless)


def balanced(items: list[Item], balance: Balance, wordless: float | None) -> list[Item]:
    """Items with the weights that a recipe asks for. ``wordless``: the share of the draws that goes to items of which nothing is said."""
    counts = Counter(item.label for item in items)
    weights = np.array([item.weight for item in items])
    if balance == "root":
        weights /= np.sqrt([counts[item.label] for item in items])
    silent = np.array([not item.label and not item.captions for item in items])
    if wordless and silent.any() and not silent.all():
        weights[silent] *= wordless / weights[silent].sum()
        weights[~silent] *= (1 - wordless) / weights[~silent].sum()
    elif balance == "items":
        return items
    return [replace(item, weight=float(weight)) for item, weight in zip(items, weights / weights.mean(), strict=True)]


def split_off(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(training, held out): the share of each label, rounded down, drawn from the seed."""
    order = np.random.default_rng([seed, 2]).permutation(len(items))
    left = {label: int(share * count) for label, count in Counter(item.label for item in items).items()}
    aside: set[int] = set()
    for index in order:
        if left[items[index].label] > 0:
            left[items[index].label] -= 1
            aside.add(int(index))
    return [item for i, item in enumerate(items) if i not in aside], [items[i] for i in sorted(aside)]


class WholeTower(nn.Module):
    """Encodes media: the tower's inputs by name → ``(n, dimension)`` unit rows."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.tower(**inputs)


class TowerAndFeatures(nn.Module):
    """The same with what stands behind the head: ``(n, dimension + features)``, the features a mean over frames."""

    def __init__(self, tower: HeadedTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        features = self.tower.features(**inputs)
        return torch.cat([unit(self.tower.vector(features)), features.mean(dim=1).float()], dim=1)


class HeadAlone(nn.Module):
    """Encodes kept features of a frozen trunk: `FEATURES` → ``(n, dimension)`` unit rows."""

    def __init__(self, tower: HeadedTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return unit(self.tower.vector(inputs[FEATURES]))


def build_feed(
    recipe: Recipe,
    tower: Tower,
    decoder: Decoder,
    *,
    with_features: bool = False,
    cache: Path | None,
    device: str,
    ranks: Ranks,
    report: Report,
) -> tuple[Batches, nn.Module]:
    """The batches, and the module that makes vectors of them. Raises `RecipeError` when the tower has no head to train alone."""
    if recipe.features is None:
        media = MediaBatches(
            decoder,
            batch=recipe.optim.batch,
            seed=recipe.seed,
            how=recipe.augment,
            templates=recipe.data.templates,
            threads=recipe.data.threads,
            workers=recipe.data.workers,
            part=(ranks.rank, ranks.count),
        )
        return media, TowerAndFeatures(cast(HeadedTower, tower)) if with_features else WholeTower(tower)
    if not (hasattr(tower, "features") and hasattr(tower, "head")):
        raise RecipeError(f"{type(tower).__name__} has no trunk and head; leave out features")
    headed = cast(HeadedTower, tower.eval())
    return _feature_batches(recipe, headed, decoder, cache, device, report), HeadAlone(headed)


def _feature_batches(
    recipe: Recipe, tower: HeadedTower, decoder: Decoder, cache: Path | None, device: str, report: Report
) -> FeatureBatches:
    assert recipe.features is not None
    wanted = recipe.features.views
    meaning = f"{recipe.spec.model_dump_json()} {recipe.augment.model_dump_json()} {wanted} {recipe.seed}"
    if (motion := getattr(getattr(tower, "config", None), "motion", None)) is not None:
        meaning += f" {motion.model_dump_json()}"  # the only part in front of the head that is shaped by more than its weights
    file = None if cache is None else cache / f"{features_key(tower, decoder, meaning)}.safetensors"
    if file is not None and file.is_file():
        views = load_views(file, decoder.items)
        decoder.skipped.update(views.skipped)
    else:
        total = len(decoder.items)
        views = feature_views(
            tower,
            decoder,
            views=wanted,
            how=recipe.augment,
            seed=recipe.seed,
            device=device,
            report=lambda done: report(Progress("features", done, total, {})),
        )
        if file is not None:
            save_views(file, views)
    return FeatureBatches(views, batch=recipe.optim.batch, seed=recipe.seed, templates=recipe.data.templates)
