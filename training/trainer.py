"""One training run: one tower learns to point where the frozen text tower points. In: a recipe. Out: a tower package."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from bindery.bundle import file_digest
from training.assembly import Assembly, Places, assemble
from training.checkpoint import Checkpoints
from training.data.batches import Decoder
from training.data.manifest import Item
from training.feed import build_feed
from training.judge import judge
from training.loop import Loop
from training.lora import merge_lora
from training.metrics import Share
from training.objective import DistillTerm
from training.progress import Report
from training.ranks import ALONE, Ranks
from training.recipe import Recipe, RecipeError
from training.record import Record
from training.start import set_training
from training.towers.package import load_tower, save_tower
from training.watch import Watch

LEARNED = "losses.safetensors"
"""Beside the package: the layers through which the tower followed its teachers, a tagger's among them."""


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
    steps: int
    """Steps that were done when it ended; fewer than the recipe's when it was stopped early."""
    plot: Path


def train(
    recipe: Recipe,
    places: Places,
    *,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    saving: Saving = Saving(),
    report: Report = lambda _: None,
) -> Trained:
    """Follow a recipe and write the tower package ``places.out``, with a plot, a history and TensorBoard events beside it.

    The same recipe, data, number of threads and of ``ranks`` give the same weights on a CPU, whether the run was stopped and resumed
    or not. Every rank calls it and gets the same outcome; the first one reports and writes.
    Raises `RecipeError`, `ManifestError`, `TowerPackageError`.
    """
    parts = assemble(recipe, places, device=device, ranks=ranks)
    batches, encode = build_feed(
        recipe,
        parts.tower,
        parts.decoder,
        with_features=parts.objective.wants_features,
        cache=places.cache,
        device=device,
        ranks=ranks,
        report=report,
    )
    loop = Loop(recipe, parts.tower, encode, parts.text, parts.objective, batches, device=device, ranks=ranks, report=report)
    if not ranks.first:
        torch.manual_seed(recipe.seed + ranks.rank)  # the weights began alike; dropout must not go on alike
    run = _Run(recipe, places, parts, loop, device=device, ranks=ranks)
    resumed_at = run.steps(saving)
    decoder = parts.decoder
    decoder.skipped = run.skipped()
    if len(decoder.skipped) == len(decoder.items):
        first = next(iter(decoder.skipped.values()))
        raise RecipeError(f"{recipe.name}: none of the {len(decoder.items)} items could be read; the first: {first}")
    return ranks.firsts(run.finish(resumed_at) if ranks.first else None)


class _Run:
    """The loop with what goes on around it: validation, the record, checkpoints."""

    def __init__(self, recipe: Recipe, places: Places, parts: Assembly, loop: Loop, *, device: str, ranks: Ranks) -> None:
        self._recipe = recipe
        self._places = places
        self._parts = parts
        self._loop = loop
        self._device = device
        self._ranks = ranks
        self._judged = Decoder(parts.aside, recipe.spec, keep=recipe.data.keep)
        self._record = Record(places.out)
        self._watch = Watch(
            recipe.watch,
            parts.tower,
            parts.text,
            self._judged,
            loop.scale,
            prompts=recipe.prompts,
            templates=recipe.data.templates,
            rule=recipe.loss.positives,
            batch=recipe.optim.batch,
            device=device,
        )

    def steps(self, saving: Saving) -> int:
        """All that are left. Returns how many were already done."""
        checkpoints = Checkpoints(self._places.out / "checkpoints")
        belongs = {
            "recipe": self._recipe.digest(),
            "items": _items_digest(self._parts.decoder.items),
            "number of processes": self._ranks.count,
        }
        self._go_on(checkpoints, belongs, saving.resume)
        resumed_at = self._loop.done

        def after_step(done: int, numbers: dict[str, float]) -> None:
            if self._watch.is_due(done, self._loop.steps):
                numbers = numbers | self._look()
            if self._ranks.first:
                self._record.add(done, numbers)
            if saving.every and (done % saving.every == 0 or self._loop.has_ended()):
                state = belongs | {"done": done, "ended": self._loop.has_ended(), "skipped": self.skipped(), "loop": self._loop.state()}
                if self._ranks.first:
                    checkpoints.save(done, state | {"watch": self._watch.state(), "record": self._record.state()})

        self._loop.run(after_step)
        return resumed_at

    def skipped(self) -> dict[str, str]:
        """Of all ranks: each sees its own part of the items."""
        return dict(pair for skipped in self._ranks.everyones(self._parts.decoder.skipped) for pair in skipped.items())

    def finish(self, resumed_at: int) -> Trained:
        """Judge the tower on the items kept aside, and write it."""
        recipe, tower, loop = self._recipe, self._parts.tower, self._loop
        self._watch.settle()
        merge_lora(tower)
        tower.eval()
        verdict = judge(
            tower,
            self._parts.text,
            self._judged,
            recipe.prompts,
            learned=loop.scale.value,
            calibrate=recipe.loss.calibrate,
            unknown=recipe.loss.unknown,
            choose=recipe.choose_prompts,
            device=self._device,
        )
        decoder = self._parts.decoder
        skipped = decoder.skipped | self._judged.skipped
        losses = tuple(loop.means)
        package = save_tower(
            self._places.out,
            tower.cpu(),
            cast(Any, tower).config,
            recipe.spec,
            logit_scale=verdict.logit_scale,
            min_similarity=verdict.min_similarity,
            prompts=verdict.prompts,
            provenance=_provenance(recipe, self._places, decoder.items, skipped, losses, verdict.accuracy) | self._space(),
        )
        if learned := self._parts.objective.learned():
            save_file(learned, package / LEARNED)
        plot = self._record.close(recipe.name)
        read = len(decoder.items) - len(decoder.skipped)
        return Trained(package, read, skipped, losses, verdict.accuracy, verdict.logit_scale, resumed_at, loop.done, plot)

    def _space(self) -> dict[str, str]:
        """Which bundle's space the tower belongs to, where it was trained in one: only there it may be added."""
        space = self._parts.text.space
        return {} if space is None else {"space": space}

    def _look(self) -> dict[str, float]:
        """Validate on the first rank, and stop on all of them where its patience is at an end."""
        figures = self._ranks.firsts(self._watch.look() if self._ranks.first else None)
        if self._ranks.firsts(self._watch.stopped if self._ranks.first else None):
            self._loop.stop()
        set_training(self._parts.tower)
        return figures

    def _go_on(self, checkpoints: Checkpoints, belongs: dict[str, Any], resume: bool) -> None:
        """Restore the newest checkpoint where that is wanted. Raises `RecipeError` when it is of another run, or would be lost."""
        found = checkpoints.newest()
        self._ranks.everyones(None)  # nobody writes or removes one before all have looked
        if found is None:
            return
        path, state = found
        if not resume:
            if not state["ended"]:
                raise RecipeError(f"{path} is of a run that did not end: resume it, or remove {path.parent}")
            if self._ranks.first:
                checkpoints.clear()
            return
        for part, value in belongs.items():
            if state[part] != value:
                raise RecipeError(f"{path} belongs to another run: the {part} changed since; begin again in another --out")
        self._loop.restore(state["loop"])
        self._watch.restore(state["watch"])
        self._record.restore(state["record"], state["done"])
        self._parts.decoder.skipped.update(state["skipped"])


def _items_digest(items: Sequence[Item]) -> str:
    """Names the items and what is said of them, in their order; not where the media directory lies."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((item.id, item.shard, item.path, item.captions, item.label, item.weight)).encode())
    return digest.hexdigest()


def _provenance(
    recipe: Recipe, places: Places, items: Sequence[Item], skipped: dict[str, str], losses: Sequence[float], held_out: Share
) -> dict[str, Any]:
    """Where the tower comes from: enough to make it again, and to credit the data and the weights it started from."""
    distilling = [term for term in recipe.losses if isinstance(term, DistillTerm)]
    teachers = [{"file": term.teacher, "sha256": file_digest(places.lesson(term.teacher)), "how": term.how} for term in distilling]
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
