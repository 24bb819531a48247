"""Watching a run on items that it does not learn from: figures every N steps, when to stop, and which weights to ship."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from training.data.batches import Decoder, captions_of
from training.data.manifest import Item
from training.judge import readable_vectors
from training.losses import LogitScale, Positives, contrastive_loss, positives
from training.metrics import recall_at, top_k
from training.text import FrozenText
from training.towers.tower import Tower

Measure = Literal["loss", "top1", "recall"]


class WatchRecipe(BaseModel):
    """Validation on the items kept aside (`data.held_out` or `data.validation`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: int = Field(0, ge=0, description="steps between validations; 0: none before the end")
    measure: Measure = Field(
        "loss", description="what must improve: the contrastive loss, zero-shot top-1 among the labels, or R@1 of items by their captions"
    )
    patience: int = Field(0, ge=0, description="validations in a row without improvement after which the run stops; 0: it never does")
    keep: Literal["last", "best"] = Field("last", description="the weights that are shipped: the last step's, or the best validation's")


class Watch:
    """Figures of the items kept aside, the best of them, and the weights that had it."""

    def __init__(
        self,
        recipe: WatchRecipe,
        tower: Tower,
        text: FrozenText,
        judged: Decoder,
        scale: LogitScale,
        *,
        prompts: Sequence[str],
        templates: Sequence[str],
        rule: Positives,
        batch: int,
        device: str,
    ) -> None:
        """``batch``: how many items are contrasted at once, so that the loss compares with that of training."""
        self._recipe = recipe
        self._tower = tower
        self._text = text
        self._judged = judged
        self._scale = scale
        self._prompts = prompts
        self._templates = templates
        self._rule: Positives = rule
        self._batch = batch
        self._device = device
        self._best = math.inf
        self._weights: dict[str, Tensor] = {}
        self._without = 0

    @property
    def stopped(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self._recipe.patience <= self._without

    def is_due(self, done: int, steps: int) -> bool:
        """After each `every` steps, and after the last."""
        return self._recipe.every > 0 and (done % self._recipe.every == 0 or done == steps)

    def look(self) -> dict[str, float]:
        """Figures now, by name: `val loss`, and `val top1` and `val recall` where the items have labels and captions."""
        self._tower.eval()
        figures = self._figures(*readable_vectors(self._tower, self._judged, self._device))
        measured = figures.get(f"val {self._recipe.measure}", math.nan)
        value = measured if self._recipe.measure == "loss" else -measured
        if value < self._best:
            self._best, self._without = value, 0
            if self._recipe.keep == "best":
                self._weights = {name: tensor.detach().cpu().clone() for name, tensor in self._tower.state_dict().items()}
                self._weights[_SCALE] = self._scale.log.detach().cpu().clone()
        else:
            self._without += 1
        return figures

    @torch.no_grad()
    def settle(self) -> None:
        """Put the best weights in place where the recipe wants them."""
        if self._weights:
            self._tower.load_state_dict({name: tensor for name, tensor in self._weights.items() if name != _SCALE})
            self._scale.log.copy_(self._weights[_SCALE])

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "without": self._without, "weights": self._weights}

    def restore(self, state: dict[str, Any]) -> None:
        self._best, self._without, self._weights = state["best"], state["without"], state["weights"]

    @torch.no_grad()
    def _figures(self, items: Sequence[Item], vectors: Vectors) -> dict[str, float]:
        captions = [captions_of(item, self._templates)[0] for item in items]  # the first: the same one at every look
        text = self._text.vectors(captions).cpu()
        media, scale = torch.from_numpy(vectors), self._scale().cpu()
        losses = []
        for start in range(0, len(items), self._batch):
            part = slice(start, start + self._batch)
            together = positives(captions[part], [item.label for item in items[part]], self._rule)
            losses.append(contrastive_loss(media[part], text[part], scale, together).item())
        figures = {"val loss": float(np.mean(losses))} if losses else {}
        labelled = [index for index, item in enumerate(items) if item.label]
        labels = sorted({items[index].label for index in labelled})
        if labels:
            classes = label_vectors(self._text.arrays(expand_labels(labels, self._prompts)), len(self._prompts))
            figures["val top1"] = top_k(vectors[labelled] @ classes.T, [labels.index(items[i].label) for i in labelled], 1).value
        if items:
            same = np.array(captions)[:, None] == np.array(captions)[None, :]  # items that share their words all answer a query
            figures["val recall"] = recall_at(text.numpy() @ vectors.T, same, 1).value
        return figures


_SCALE = "logit scale"
