"""A recipe: everything that decides what a training run gives, as one TOML file. Unknown keys are errors.

Paths in it are relative: the manifest to the media directory, towers to the towers directory, both given on the command line.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bindery.spec import Spec
from training.data.augment import Augment
from training.gradients import ComputeRecipe
from training.lora import LoraConfig
from training.losses import Positives
from training.objective import ContrastiveTerm, LossTerm
from training.optim import OptimRecipe
from training.towers.build import TowerConfig
from training.watch import WatchRecipe


class RecipeError(ValueError):
    """The recipe cannot be followed. The message names the file and the key."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Balance = Literal["items", "root"]


class DataRecipe(_Part):
    """Which items, and what is said of them."""

    manifest: str = Field(description="CSV, JSON Lines or Parquet, or WebDataset shards: `train-{000..127}.tar`")
    modality: str | None = Field(None, description="only rows of this modality, where a manifest names several")
    member: str | None = Field(None, description="ending of the medium's file, for shards whose samples have several (`jpg`)")
    split: str = Field("train", description="split of the manifest to train on")
    skip_licences: tuple[str, ...] = Field((), description="shell-style patterns of licences that are left out")
    skip_labels: tuple[str, ...] = Field((), description="labels whose items are left out: to measure what is not trained on")
    templates: tuple[str, ...] = Field((), description="`{}` takes the label; one caption more for each template")
    balance: Balance = Field("items", description="items: all alike, but for their weights; root: labels by the root of their counts")
    wordless: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="items without captions and label may be among them, for the teachers alone, with this share of the draws (0: as many "
        "as there are)",
    )
    held_out: float = Field(0.0, ge=0, lt=1, description="share of each label kept from training to watch it and to calibrate on")
    validation: str | None = Field(None, description="split of the manifest to watch and to calibrate on, instead of held_out")
    keep: bool = Field(False, description="hold prepared tensors in memory after the first epoch")
    threads: int = Field(1, gt=0, description="decoding threads")
    workers: int = Field(0, ge=0, description="decoding processes, in place of threads; 0: none")

    @model_validator(mode="after")
    def _kept_where_it_is_decoded(self) -> Self:
        if self.keep and self.workers:
            raise ValueError("keep holds what one process decodes; leave out keep or workers")
        return self


class TowerRecipe(_Part):
    """What is trained, and from where."""

    config: TowerConfig | None = Field(None, description="shape of the tower; left out: the starting package's own")
    start: str | None = Field(None, description="a tower package whose weights it starts from")
    start_parts: tuple[str, ...] = Field((), description="prefixes of the weights taken from there; empty: all")
    train: Literal["lora", "full", "all"] | tuple[str, ...] = Field(
        description="the reference's two ways for vision transformers, every parameter, or prefixes of those that are trained"
    )
    lora: LoraConfig = Field(LoraConfig(), description='for train = "lora"')

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Self:
        if self.config is None and self.start is None:
            raise ValueError("a tower needs config, start, or both")
        return self


class FeatureRecipe(_Part):
    """Frozen trunk: its features are computed once, for several augmented views an item, and only the head is trained."""

    views: int = Field(1, gt=0, description="views of an item; the first one is not augmented")


class LossRecipe(_Part):
    """The contrastive loss."""

    temperature: float = Field(0.07, gt=0, description="initial temperature; learned")
    positives: Positives = Field(
        "same_caption",
        description="who belongs together besides an item and its caption: nobody, items that drew the same text, or items of one label",
    )
    calibrate: bool = Field(False, description="replace the learned logit scale by the one that fits the held-out items best")
    unknown: bool = Field(
        True, description="calibrate min_similarity too; not where users ask for several kinds of labels that lie at different cosines"
    )


class Recipe(_Part):
    """One run: one tower trained against a frozen text tower."""

    name: str = Field(description="of the run; stands in the package's provenance")
    seed: int = Field(0, ge=0, description="of everything that is drawn: first weights, order, augmentation, captions, dropout")
    text: str = Field(description="the frozen text tower: a package in --towers, or `bundle:` and a bundle's name or directory")
    prompts: tuple[str, ...] = Field(("{}",), min_length=1, description="the modality's templates in the bundle")
    choose_prompts: bool = Field(
        False, description="keep those of prompts under which the items kept aside are named best; of sets that are alike, the largest"
    )
    spec: Spec = Field(description="how a file becomes a tensor; travels into the bundle")
    tower: TowerRecipe = Field(description="what is trained, and from where")
    data: DataRecipe = Field(description="which items")
    features: FeatureRecipe | None = Field(None, description="train a head on features that are computed once")
    augment: Augment = Field(Augment(), description="random changes of prepared tensors")
    loss: LossRecipe = Field(LossRecipe(), description="the contrastive loss and its temperature")
    losses: tuple[LossTerm, ...] = Field(
        (ContrastiveTerm(),), min_length=1, description="what is minimised: the sum, each times its weight"
    )
    optim: OptimRecipe = Field(description="how long and how fast")
    compute: ComputeRecipe = Field(ComputeRecipe(), description="memory and speed")
    watch: WatchRecipe = Field(WatchRecipe(), description="validation, early stop, which weights are shipped")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.features is not None and self.tower.train != ("head",):
            raise ValueError('features are computed once only when tower.train is ["head"]')
        aside = self.data.held_out > 0 or self.data.validation is not None
        if self.loss.calibrate and not aside:
            raise ValueError("loss.calibrate needs data.held_out or data.validation")
        if self.data.held_out > 0 and self.data.validation is not None:
            raise ValueError("data.held_out and data.validation are two ways to say the same; leave one out")
        if self.choose_prompts and not aside:
            raise ValueError("choose_prompts needs data.held_out or data.validation")
        if len(set(self.prompts)) < len(self.prompts):
            raise ValueError("prompts names a template twice")
        if self.watch.every and not aside:
            raise ValueError("watch.every needs data.held_out or data.validation")
        if not self.watch.every and (self.watch.patience or self.watch.keep == "best"):
            raise ValueError("watch.patience and watch.keep need watch.every")
        if self.augment.mixup and any(term.kind == "distill" for term in self.losses):
            raise ValueError("a teacher has no vectors of mixed items: leave out augment.mixup or the losses of kind distill")
        return self

    def digest(self) -> str:
        """sha256 over the recipe's meaning: comments and order do not count, nor do later fields that are left at their defaults."""
        return hashlib.sha256(self.model_dump_json(exclude=_unused(self, _LATER)).encode()).hexdigest()


_LATER: dict[str, Any] = {
    "spec": {"preemphasis": True, "frame_mean": True, "spectrum": True, "log_offset": True, "windows": True},
    "losses": {"negatives": True, "spared": True, "of": True, "sure": True},
    "optim": {"fall": True},
    "loss": {"unknown": True},
    "compute": True,
    "watch": True,
    "choose_prompts": True,
    "data": {"modality": True, "member": True, "validation": True, "workers": True, "skip_labels": True, "balance": True, "wordless": True},
    "tower": {"config": {"tagger": {"scores": True, "frames": True}, "apart": True, "block": True, "motion": True}},
}
"""Fields that recipes did not have at first. Where one has its default the digest is the one that the recipe had before."""


def _unused(part: BaseModel | None, later: dict[str, Any]) -> dict[str, Any]:
    """Which of ``later`` are at their defaults, in pydantic's form for `exclude`. Not every kind of part has every field."""
    unused: dict[str, Any] = {}
    for name, inside in later.items():
        if part is None or name not in type(part).model_fields:
            continue
        value = getattr(part, name)
        if value == type(part).model_fields[name].get_default(call_default_factory=True):
            unused[name] = True
        elif isinstance(inside, dict):
            within: dict[Any, Any] = {} if isinstance(value, tuple) else _unused(value, inside)
            if isinstance(value, tuple):
                within = {place: left for place, one in enumerate(value) if (left := _unused(one, inside))}
            if within:
                unused[name] = within
    return unused


def read_recipe(path: str | Path) -> Recipe:
    """Raises `RecipeError`."""
    file = Path(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{file} cannot be read: {error}") from error
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise RecipeError(f"{file}: {where}: {first['msg']}") from error
