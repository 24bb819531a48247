"""What a run is made of, put together as the recipe says: the parts that a real run and a dry one share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bindery.errors import BinderyError
from training.data.batches import Decoder
from training.data.manifest import Item
from training.distill import load_teacher
from training.feed import read_items, split_off
from training.objective import DistillTerm, Objective
from training.ranks import ALONE, Ranks
from training.recipe import Recipe, RecipeError
from training.recompute import recompute_blocks
from training.start import choose_trained, start_tower, trains_batch_norm
from training.text import FrozenText, frozen_text
from training.towers.tower import Tower


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads and writes."""

    media: Path
    towers: Path
    out: Path
    cache: Path | None = None
    """Keeps the features of frozen trunks from run to run; None: they are computed again."""

    def lesson(self, name: str) -> Path:
        """The file of a teacher: in the media directory, else in that of the towers."""
        return self.media / name if (self.media / name).exists() else self.towers / name


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything but the loop. ``aside``: the items that are watched and never learned from."""

    text: FrozenText
    tower: Tower
    trained: tuple[str, ...]
    """Names of the parameters that learn, adapters included."""
    decoder: Decoder
    aside: list[Item]
    objective: Objective


def assemble(recipe: Recipe, places: Places, *, device: str, ranks: Ranks = ALONE) -> Assembly:
    """Raises `RecipeError`, `ManifestError`, `TowerPackageError`."""
    torch.manual_seed(recipe.seed)
    text = _text(recipe, places, device)
    tower = start_tower(recipe.tower, places.towers).to(device)
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions; missing in torch's own types
    trained = choose_trained(tower, recipe.tower)
    _check_pieces(recipe, tower, ranks)
    if recipe.compute.recompute and not recompute_blocks(tower):
        raise RecipeError(f"compute.recompute: {type(tower).__name__} has no blocks to compute again")
    training = read_items(recipe, places.media, recipe.data.split)
    if recipe.data.validation is None:
        training, aside = split_off(training, recipe.data.held_out, recipe.seed)
    else:
        aside = read_items(recipe, places.media, recipe.data.validation)
    decoder = Decoder(training, recipe.spec, keep=recipe.data.keep)
    objective = _objective(recipe, tower, training, places, text).to(device)
    return Assembly(text, tower, trained, decoder, aside, objective)


def _text(recipe: Recipe, places: Places, device: str) -> FrozenText:
    try:
        return frozen_text(recipe.text, places.towers, device=device)
    except BinderyError as error:
        raise RecipeError(f"{recipe.name}: text: {error.detail}") from error


def _objective(recipe: Recipe, tower: Tower, items: Sequence[Item], places: Places, text: FrozenText) -> Objective:
    """The recipe's losses with their teachers. Raises `RecipeError`, naming the file of a teacher that cannot be used."""
    distilling = [term for term in recipe.losses if isinstance(term, DistillTerm)]
    try:
        teachers = [
            load_teacher(places.lesson(term.teacher), items, ids=places.lesson(term.ids) if term.ids else None, key=term.key)
            for term in distilling
        ]
        files = {term.texts if isinstance(term, DistillTerm) else term.negatives for term in recipe.losses} - {None}
        texts = {name: text.vectors(places.lesson(name).read_text(encoding="utf-8").splitlines()) for name in sorted(filter(None, files))}
        return Objective(
            recipe.losses,
            teachers,
            dimension=tower.dimension,
            features=tower.feature_width,
            temperature=recipe.loss.temperature,
            texts=texts,
        )
    except (OSError, ValueError) as error:  # `TeacherError` too
        raise RecipeError(f"{recipe.name}: {error}") from error


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
