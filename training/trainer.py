"""One training run: one tower learns to point where the frozen text tower points. In: a recipe. Out: a tower package."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bindery.bundle import file_digest
from training.checkpoint import Checkpoints
from training.data.batches import Decoder
from training.data.manifest import Item
from training.distill import load_teacher
from training.feed import build_feed, read_items, split_off
from training.judge import judge
from training.loop import Loop
from training.lora import merge_lora
from training.metrics import Share
from training.objective import DistillTerm, Objective
from training.progress import Report
from training.ranks import ALONE, Ranks
from training.recipe import Recipe, RecipeError
from training.recompute import recompute_blocks
from training.start import choose_trained, start_tower, trains_batch_norm
from training.text import FrozenText
from training.towers.package import load_tower, save_tower
from training.towers.tower import Tower


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads and writes."""

    media: Path
    towers: Path
    out: Path
    cache: Path | None = None
    """Keeps the features of frozen trunks from run to run; None: they are computed again."""


@dataclass(frozen=True, slots=True)
class Saving:
    """When a run writes checkpoints (into `checkpoints/` beside the package), and whether it goes on from one."""

    every: int = 0
    """Steps between them; 0: none."""
    resume: bool = False
    """Go on from the newest checkpoint; where there is none, begin."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a run. ``losses``: the mean of each epoch. ``held_out``: zero-shot accuracy on the items kept aside."""

    package: Path
    items: int
    skipped: dict[str, str]
    losses: tuple[float, ...]
    held_out: Share
    logit_scale: float
    resumed_at: int
    """Steps that were done when the run began; 0: it began afresh."""


def train(
    recipe: Recipe,
    places: Places,
    *,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    saving: Saving = Saving(),
    report: Report = lambda _: None,
) -> Trained:
    """Follow a recipe and write the tower package ``places.out``.

    The same recipe, data, number of threads and of ``ranks`` give the same weights on a CPU, whether the run was stopped and resumed
    or not. Every rank calls it and gets the same outcome; the first one reports and writes.
    Raises `RecipeError`, `ManifestError`, `TowerPackageError`.
    """
    torch.manual_seed(recipe.seed)
    text = FrozenText(load_tower(places.towers / recipe.text), device=device)
    tower = start_tower(recipe.tower, places.towers).to(device)
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions; missing in torch's own types
    choose_trained(tower, recipe.tower)
    _check_pieces(recipe, tower, ranks)
    if recipe.compute.recompute and not recompute_blocks(tower):
        raise RecipeError(f"compute.recompute: {type(tower).__name__} has no blocks to compute again")
    training, aside = split_off(read_items(recipe, places.media), recipe.data.held_out, recipe.seed)
    decoder = Decoder(training, recipe.spec, keep=recipe.data.keep)
    batches, encode = build_feed(recipe, tower, decoder, cache=places.cache, device=device, ranks=ranks, report=report)
    objective = _objective(recipe, tower.dimension, training, places.media, text).to(device)
    loop = Loop(recipe, tower, encode, text, objective, batches, device=device, ranks=ranks, report=report)
    if not ranks.first:
        torch.manual_seed(recipe.seed + ranks.rank)  # the weights began alike; dropout must not go on alike
    resumed_at = _run(loop, recipe, decoder, Checkpoints(places.out / "checkpoints"), saving, ranks)
    decoder.skipped = dict(pair for skipped in ranks.everyones(decoder.skipped) for pair in skipped.items())
    if len(decoder.skipped) == len(training):
        first = next(iter(decoder.skipped.values()))
        raise RecipeError(f"{recipe.name}: none of the {len(training)} items could be read; the first: {first}")

    return ranks.firsts(_finished(recipe, places, tower, text, loop, decoder, aside, resumed_at, device) if ranks.first else None)


def _finished(
    recipe: Recipe,
    places: Places,
    tower: Tower,
    text: FrozenText,
    loop: Loop,
    decoder: Decoder,
    aside: Sequence[Item],
    resumed_at: int,
    device: str,
) -> Trained:
    """Judge the tower on the items kept aside, and write it."""
    merge_lora(tower)
    tower.eval()
    judged = Decoder(aside, recipe.spec)
    held_out, logit_scale = judge(
        tower, text, judged, recipe.prompts, learned=loop.scale.value, calibrate=recipe.loss.calibrate, device=device
    )
    skipped = decoder.skipped | judged.skipped
    losses = tuple(loop.means)
    package = save_tower(
        places.out,
        tower.cpu(),
        cast(Any, tower).config,
        recipe.spec,
        logit_scale=logit_scale,
        prompts=recipe.prompts,
        provenance=_provenance(recipe, places, decoder.items, skipped, losses, held_out),
    )
    return Trained(package, len(decoder.items) - len(decoder.skipped), skipped, losses, held_out, logit_scale, resumed_at)


def _check_pieces(recipe: Recipe, tower: Tower, ranks: Ranks) -> None:
    """Raises `RecipeError` when a batch cannot be computed in the pieces asked for with the gradients of the whole."""
    pieces = [
        name
        for name, used in (
            ("compute.chunk", recipe.compute.chunk),
            ("compute.recompute", recipe.compute.recompute),
            ("several processes", ranks.count > 1),
        )
        if used
    ]
    if pieces and trains_batch_norm(tower):
        raise RecipeError(f"a batch norm that is trained sees the whole batch at once; {pieces[0]} would change it: freeze it")
    if ranks.count > 1 and recipe.augment.mixup:
        raise RecipeError("augment.mixup mixes items of the whole batch, which no one of several processes has")
    if ranks.count > 1 and recipe.features is not None:
        raise RecipeError("a head on kept features is trained by one process; leave out features, or torchrun")
    if ranks.count > recipe.optim.batch:
        raise RecipeError(f"optim.batch {recipe.optim.batch} has no item for each of {ranks.count} processes")


def _objective(recipe: Recipe, dimension: int, items: Sequence[Item], media: Path, text: FrozenText) -> Objective:
    """The recipe's losses with their teachers. Raises `RecipeError`, naming the file of a teacher that cannot be used."""
    distilling = [term for term in recipe.losses if isinstance(term, DistillTerm)]
    try:
        teachers = [
            load_teacher(media / term.teacher, items, ids=media / term.ids if term.ids else None, key=term.key) for term in distilling
        ]
        files = {term.texts for term in distilling if term.texts is not None}
        texts = {name: text.vectors((media / name).read_text(encoding="utf-8").splitlines()) for name in sorted(files)}
        return Objective(recipe.losses, teachers, dimension=dimension, temperature=recipe.loss.temperature, texts=texts)
    except (OSError, ValueError) as error:  # `TeacherError` too
        raise RecipeError(f"{recipe.name}: {error}") from error


def _run(loop: Loop, recipe: Recipe, decoder: Decoder, checkpoints: Checkpoints, saving: Saving, ranks: Ranks) -> int:
    """All steps, with checkpoints on the way. Returns how many were already done."""
    belongs = {"recipe": recipe.digest(), "items": _items_digest(decoder.items), "number of processes": ranks.count}
    found = checkpoints.newest()
    ranks.everyones(None)  # nobody writes or removes one before all have looked
    if found is not None:
        path, state = found
        if not saving.resume:
            if state["done"] < state["steps"]:
                raise RecipeError(f"{path} is of a run that did not end: resume it, or remove {path.parent}")
            if ranks.first:
                checkpoints.clear()
        else:
            for part, digest in belongs.items():
                if state[part] != digest:
                    raise RecipeError(f"{path} belongs to another run: the {part} changed since; begin again in another --out")
            loop.restore(state["loop"])
            decoder.skipped.update(state["skipped"])
    resumed_at = loop.done

    def after_step(done: int) -> None:
        if saving.every and (done % saving.every == 0 or done == loop.steps):
            skipped = dict(pair for skipped in ranks.everyones(decoder.skipped) for pair in skipped.items())
            state = belongs | {"done": done, "steps": loop.steps, "skipped": skipped, "loop": loop.state()}
            if ranks.first:
                checkpoints.save(done, state)

    loop.run(after_step)
    return resumed_at


def _items_digest(items: Sequence[Item]) -> str:
    """Names the items and what is said of them, in their order; not where the media directory lies."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((item.id, item.shard, item.path, item.captions, item.label)).encode())
    return digest.hexdigest()


def _provenance(
    recipe: Recipe, places: Places, items: Sequence[Item], skipped: dict[str, str], losses: Sequence[float], held_out: Share
) -> dict[str, Any]:
    """Where the tower comes from: enough to make it again, and to credit the data and the weights it started from."""
    distilling = [term for term in recipe.losses if isinstance(term, DistillTerm)]
    teachers = [{"file": term.teacher, "sha256": file_digest(places.media / term.teacher), "how": term.how} for term in distilling]
    sources = Counter((item.source, item.licence) for item in items if item.id not in skipped)
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.digest(),
        "seed": recipe.seed,
        "start": None
        if recipe.tower.start is None
        else {"package": recipe.tower.start} | load_tower(places.towers / recipe.tower.start).provenance,
        "text": recipe.text,
        "data": [{"source": source, "licence": licence, "items": count} for (source, licence), count in sorted(sources.items())],
        "skipped_items": len(skipped),
        "loss": losses[-1],
        "held_out": {"top1": held_out.hits, "n": held_out.n},
        "torch": torch.__version__,
    } | ({"teachers": teachers} if teachers else {})
