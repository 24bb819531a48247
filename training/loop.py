"""The training loop: batches in, steps taken; it can stop after any step and go on from there, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.data.augment import mix_weights
from training.data.batches import Batch, Batches
from training.losses import LogitScale, positives
from training.objective import Objective
from training.optim import build_optimizer, rate_at, set_rate
from training.progress import Progress, Report
from training.recipe import Recipe
from training.start import set_training
from training.text import FrozenText
from training.towers.tower import Tower


class Loop:
    """One run's moving parts. `run` takes all steps that are left; `state` and `restore` carry them over a stop."""

    def __init__(
        self,
        recipe: Recipe,
        tower: Tower,
        encode: nn.Module,
        text: FrozenText,
        objective: Objective,
        batches: Batches,
        *,
        device: str,
        report: Report,
    ) -> None:
        self._objective = objective
        self.means: list[float] = []
        """Mean loss of each finished epoch."""
        self._recipe = recipe
        self._tower = tower
        self._encode = encode
        self._text = text
        self._batches = batches
        self._device = device
        self._report = report
        self._optimizer = build_optimizer([*tower.named_parameters(), *objective.named_trained()], recipe.optim)
        self._losses: list[float] = []
        """Of the epoch that is going on."""
        self._done = 0
        """Steps behind us, those whose items could all not be read included: the position in the data."""

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self._recipe.optim.epochs * self._batches.steps

    @property
    def scale(self) -> LogitScale:
        return self._objective.scale

    @property
    def done(self) -> int:
        return self._done

    def run(self, after_step: Callable[[int], None] = lambda _: None) -> None:
        """Take the steps that are left. ``after_step`` is told how many are done, after each."""
        while self._done < self.steps:
            epoch, first = divmod(self._done, self._batches.steps)
            set_training(self._tower)
            for index, batch in enumerate(self._batches.epoch(epoch, first), start=first):
                numbers: dict[str, float] = {}
                if batch.captions:
                    loss, numbers = self._step(batch, epoch, index)
                    self._losses.append(loss)
                self._done += 1
                if index + 1 == self._batches.steps:
                    self.means.append(float(np.mean(self._losses)) if self._losses else float("nan"))
                    self._losses = []
                self._report(Progress("train", self._done, self.steps, numbers | {"scale": self.scale.value}))
                after_step(self._done)

    def _step(self, batch: Batch, epoch: int, index: int) -> tuple[float, dict[str, float]]:
        """One step; gives the loss, and the numbers worth seeing."""
        set_rate(self._optimizer, rate_at(epoch * self._batches.steps + index, self.steps, self._recipe.optim))
        inputs, together = _mixed(batch, self._recipe, epoch, index)
        media = self._encode({name: tensor.to(self._device) for name, tensor in inputs.items()})
        loss, parts = self._objective(media, self._text.vectors(batch.captions), together.to(self._device), batch.ids)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.scale.clamp()
        value = loss.item()
        return value, {"loss": value} | (parts if len(parts) > 1 else {})

    def state(self) -> dict[str, Any]:
        """Weights, optimiser, random numbers, texts, and how far the run is: everything but the data and the recipe."""
        return {
            "done": self._done,
            "tower": self._tower.state_dict(),
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self._device.startswith("cuda") else [],
            "texts": self._text.state(),
            "losses": list(self._losses),
            "means": list(self.means),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, in a loop made from the same recipe and data."""
        self._tower.load_state_dict(state["tower"])
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self._text.restore(state["texts"])
        self._done = state["done"]
        self._losses = list(state["losses"])
        self.means = list(state["means"])


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
