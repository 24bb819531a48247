"""The training loop: one tower learns to point where the frozen text tower points. In: a recipe. Out: a tower package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from training.data.augment import mix_weights
from training.data.batches import Batch, Batches, Decoder, MediaBatches
from training.data.manifest import Item, read_manifest, without_licences
from training.features import FEATURES, FeatureBatches, HeadedTower, feature_views, features_key, load_views, save_views
from training.lora import merge_lora
from training.losses import LogitScale, contrastive_loss, positives
from training.metrics import Share, fit_logit_scale, top_k
from training.optim import build_optimizer, rate_at, set_rate
from training.recipe import Recipe, RecipeError
from training.start import choose_trained, set_training, start_tower
from training.text import FrozenText
from training.towers.package import load_tower, save_tower
from training.towers.tower import Tower, unit

Encode = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run says of itself now and then: a stage's name, how far it is, and numbers worth seeing."""

    stage: str
    done: int
    total: int
    numbers: dict[str, float]


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads and writes."""

    media: Path
    towers: Path
    out: Path
    cache: Path | None = None
    """Keeps the features of frozen trunks from run to run; None: they are computed again."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a run. ``losses``: the mean of each epoch. ``held_out``: zero-shot accuracy on the items kept aside."""

    package: Path
    items: int
    skipped: dict[str, str]
    losses: tuple[float, ...]
    held_out: Share
    logit_scale: float


def train(recipe: Recipe, places: Places, *, device: str = "cpu", report: Report = lambda _: None) -> Trained:
    """Follow a recipe and write the tower package ``places.out``.

    The same recipe, data and number of threads give the same weights on a CPU.
    Raises `RecipeError`, `ManifestError`, `TowerPackageError`.
    """
    torch.manual_seed(recipe.seed)
    text = FrozenText(load_tower(places.towers / recipe.text), device=device)
    tower = start_tower(recipe.tower, places.towers).to(device)
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions; missing in torch's own types
    choose_trained(tower, recipe.tower)
    training, aside = split_off(_items(recipe, places.media), recipe.data.held_out, recipe.seed)
    decoder = Decoder(training, recipe.spec, keep=recipe.data.keep)

    if recipe.features is None:
        batches: Batches = _media_batches(recipe, decoder)
        encode = _whole(tower)
    else:
        batches = _feature_batches(recipe, tower, decoder, places, device, report)
        encode = _head_of(tower)
    scale = LogitScale(recipe.loss.temperature).to(device)
    losses = _fit(recipe, tower, encode, text, scale, batches, device, report)
    if len(decoder.skipped) == len(training):
        first = next(iter(decoder.skipped.values()))
        raise RecipeError(f"{recipe.name}: none of the {len(training)} items could be read; the first: {first}")

    merge_lora(tower)
    tower.eval()
    judged = Decoder(aside, recipe.spec)
    held_out, logit_scale = _judge(recipe, tower, text, judged, scale.value, device)
    skipped = decoder.skipped | judged.skipped
    package = save_tower(
        places.out,
        tower.cpu(),
        cast(Any, tower).config,
        recipe.spec,
        logit_scale=logit_scale,
        prompts=recipe.prompts,
        provenance=_provenance(recipe, places.towers, training, skipped, losses, held_out),
    )
    return Trained(package, len(training) - len(decoder.skipped), skipped, losses, held_out, logit_scale)


def _fit(
    recipe: Recipe,
    tower: Tower,
    encode: Encode,
    text: FrozenText,
    scale: LogitScale,
    batches: Batches,
    device: str,
    report: Report,
) -> tuple[float, ...]:
    """The loop. Returns the mean loss of each epoch."""
    optimizer = build_optimizer([*tower.named_parameters(), ("logit_scale", scale.log)], recipe.optim)
    total = recipe.optim.epochs * batches.steps
    means: list[float] = []
    for epoch in range(recipe.optim.epochs):
        set_training(tower)
        losses: list[float] = []
        for index, batch in enumerate(batches.epoch(epoch)):
            set_rate(optimizer, rate_at(epoch * batches.steps + index, total, recipe.optim))
            inputs, together = _mixed(batch, recipe, epoch, index)
            media = encode({name: tensor.to(device) for name, tensor in inputs.items()})
            loss = contrastive_loss(media, text.vectors(batch.captions), scale(), together.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scale.clamp()
            losses.append(loss.item())
        means.append(float(np.mean(losses)) if losses else float("nan"))
        report(Progress("train", epoch + 1, recipe.optim.epochs, {"loss": means[-1], "scale": scale.value}))
    return tuple(means)


def _mixed(batch: Batch, recipe: Recipe, epoch: int, step: int) -> tuple[dict[str, Tensor], Tensor]:
    """The batch's inputs and its ``(n, n)`` targets; with mixup, each item is blended with another, and so are their targets."""
    together = positives(batch.captions, batch.labels, recipe.loss.positives)
    if not recipe.augment.mixup:
        return batch.inputs, together
    partner, share = mix_weights(len(batch.captions), recipe.augment, np.random.default_rng([recipe.seed, 1, epoch, step]))
    own = torch.from_numpy(share)
    inputs = {}
    for name, tensor in batch.inputs.items():
        weight = own.reshape(-1, *[1] * (tensor.ndim - 1))  # (n, 1, 1, ...)
        inputs[name] = weight * tensor + (1 - weight) * tensor[partner]
    return inputs, own[:, None] * together + (1 - own[:, None]) * together[partner]


def _items(recipe: Recipe, media: Path) -> list[Item]:
    everything = read_manifest(media / recipe.data.manifest, split=recipe.data.split)
    items = without_licences(everything, recipe.data.skip_licences)
    if not items:
        raise RecipeError(f"{media / recipe.data.manifest} has no item of split {recipe.data.split!r} with a licence that may be used")
    return items


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


def _media_batches(recipe: Recipe, decoder: Decoder) -> MediaBatches:
    return MediaBatches(
        decoder,
        batch=recipe.optim.batch,
        seed=recipe.seed,
        how=recipe.augment,
        templates=recipe.data.templates,
        threads=recipe.data.threads,
    )


def _feature_batches(recipe: Recipe, tower: Tower, decoder: Decoder, places: Places, device: str, report: Report) -> FeatureBatches:
    assert recipe.features is not None
    if not (hasattr(tower, "features") and hasattr(tower, "head")):
        raise RecipeError(f"{type(tower).__name__} has no trunk and head; leave out features")
    headed = cast(HeadedTower, tower.eval())
    wanted = recipe.features.views
    meaning = f"{recipe.spec.model_dump_json()} {recipe.augment.model_dump_json()} {wanted} {recipe.seed}"
    file = None if places.cache is None else places.cache / f"{features_key(headed, decoder, meaning)}.safetensors"
    if file is not None and file.is_file():
        views = load_views(file, decoder.items)
        decoder.skipped.update(views.skipped)
    else:
        total = len(decoder.items)
        views = feature_views(
            headed,
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


def _whole(tower: Tower) -> Encode:
    return lambda inputs: tower(**inputs)


def _head_of(tower: Tower) -> Encode:
    return lambda inputs: unit(cast(HeadedTower, tower).head(inputs[FEATURES]))


def _judge(recipe: Recipe, tower: Tower, text: FrozenText, judged: Decoder, learned: float, device: str) -> tuple[Share, float]:
    """Zero-shot accuracy on the held-out items among their labels, and the logit scale to ship."""
    items, vectors = _vectors(tower, judged, device)
    labels = sorted({item.label for item in items})
    if not labels:
        return Share(0, 0), learned
    classes = label_vectors(text.arrays(expand_labels(labels, recipe.prompts)), len(recipe.prompts))
    right = [labels.index(item.label) for item in items]
    accuracy = top_k(vectors @ classes.T, right, 1)
    return accuracy, fit_logit_scale(vectors, classes, right) if recipe.loss.calibrate else learned


@torch.no_grad()
def _vectors(tower: Tower, decoder: Decoder, device: str) -> tuple[list[Item], Vectors]:
    """The readable items that have a label, and their vectors."""
    labelled = [index for index, item in enumerate(decoder.items) if item.label]
    read = [(decoder.items[index], tensors) for index in labelled if (tensors := decoder.tensors(index)) is not None]
    rows = [tower(**{name: torch.from_numpy(array)[None].to(device) for name, array in tensors.items()}) for _, tensors in read]
    return [item for item, _ in read], torch.cat(rows).cpu().numpy() if rows else np.empty((0, tower.dimension), dtype=np.float32)


def _provenance(
    recipe: Recipe, towers: Path, items: Sequence[Item], skipped: dict[str, str], losses: Sequence[float], held_out: Share
) -> dict[str, Any]:
    """Where the tower comes from: enough to make it again, and to credit the data and the weights it started from."""
    sources = Counter((item.source, item.licence) for item in items if item.id not in skipped)
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.digest(),
        "seed": recipe.seed,
        "start": None
        if recipe.tower.start is None
        else {"package": recipe.tower.start} | load_tower(towers / recipe.tower.start).provenance,
        "text": recipe.text,
        "data": [{"source": source, "licence": licence, "items": count} for (source, licence), count in sorted(sources.items())],
        "skipped_items": len(skipped),
        "loss": losses[-1],
        "held_out": {"top1": held_out.hits, "n": held_out.n},
        "torch": torch.__version__,
    }
