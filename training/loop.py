"""The training loop: batches in, steps taken; it can stop after any step and go on from there, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.data.augment import mix_weights
from training.data.batches import Batch, Batches
from training.gradients import Gradients, Task
from training.losses import LogitScale, positives
from training.objective import Objective
from training.optim import build_optimizer, rate_at, set_rate
from training.progress import Progress, Report
from training.ranks import Ranks
from training.recipe import Recipe
from training.start import set_training
from training.text import FrozenText
from training.towers.tower import Tower

AfterStep = Callable[[int, dict[str, float]], None]


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
        ranks: Ranks,
        report: Report,
    ) -> None:
        self.means: list[float] = []
        """Mean loss of each finished epoch."""
        self._recipe = recipe
        self._tower = tower
        self._text = text
        self._objective = objective
        self._batches = batches
        self._device = device
        self._ranks = ranks
        self._report = report
        self._gradients = Gradients(encode, objective, recipe.compute, device=device, ranks=ranks)
        self._optimizer = build_optimizer([*tower.named_parameters(), *objective.named_trained()], recipe.optim)
        self._losses: list[float] = []
        """Of the epoch that is going on."""
        self._done = 0
        """Steps behind us, those whose items could all not be read included: the position in the data."""
        self._stopped = False
        self._each = -(-batches.steps // recipe.compute.accumulate)
        """Steps of an epoch."""

    @property
    def scale(self) -> LogitScale:
        return self._objective.scale

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return max(1, self._of(self._recipe.optim.epochs))

    def _of(self, epochs: float | None) -> int:
        """Steps of so many epochs."""
        return round((epochs or 0) * self._each)

    @property
    def done(self) -> int:
        return self._done

    def run(self, after_step: AfterStep = lambda _done, _numbers: None) -> None:
        """Take the steps that are left, until `stop` is called. ``after_step`` is told how many are done, and their numbers, after each."""
        while not self.has_ended():
            epoch, first = divmod(self._done, self._each)
            set_training(self._tower)
            for index, tasks in enumerate(self._tasks(epoch, first), start=first):
                numbers: dict[str, float] = {}
                if tasks:
                    numbers = self._step(tasks)
                    self._losses.append(numbers["loss"])
                numbers["scale"] = self.scale.value
                self._done += 1
                if index + 1 == self._each or (self._done == self.steps and self._losses):
                    self._end_epoch()
                self._report(Progress("train", self._done, self.steps, numbers))
                after_step(self._done, numbers)
                if self.has_ended():
                    return

    def stop(self) -> None:
        """Take no more steps, now or when this state is restored."""
        self._stopped = True
        if self._losses:
            self._end_epoch()

    def has_ended(self) -> bool:
        """Whether no step is left, or none will be taken."""
        return self._stopped or self._done == self.steps

    def _end_epoch(self) -> None:
        self.means.append(float(np.mean(self._losses)) if self._losses else float("nan"))
        self._losses = []

    def _tasks(self, epoch: int, first: int) -> Iterator[list[Task]]:
        """The batches of each step of an epoch, from step ``first`` on."""
        size = self._recipe.compute.accumulate
        batches = iter(self._batches.epoch(epoch, first * size))
        for step in range(first, self._each):
            group = enumerate(islice(batches, size), start=step * size)
            yield [task for index, batch in group if (task := self._task(batch, epoch, index)) is not None]

    def _task(self, batch: Batch, epoch: int, index: int) -> Task | None:
        """The batch with everyone's words; None, on every rank alike, where one of them has no readable item."""
        everyones = self._ranks.everyones((batch.captions, batch.labels, batch.ids))
        counts = tuple(len(captions) for captions, _, _ in everyones)
        if 0 in counts:
            return None
        captions, labels, ids = (tuple(word for words in column for word in words) for column in zip(*everyones, strict=True))
        together = positives(captions, labels, self._recipe.loss.positives)
        inputs, together = _mixed(batch.inputs, together, self._recipe, epoch, index)
        text = self._ranks.rows(self._text.vectors(batch.captions), counts)
        return Task(inputs, counts, text, together.to(self._device), ids)

    def _step(self, tasks: list[Task]) -> dict[str, float]:
        """One step of the optimiser; gives the numbers worth seeing, means over the step's batches."""
        set_rate(self._optimizer, rate_at(self._done, max(self.steps, self._of(self._recipe.optim.fall)), self._recipe.optim))
        self._optimizer.zero_grad(set_to_none=True)
        seen: list[dict[str, float]] = []
        for number, task in enumerate(tasks, start=1):
            loss, parts = self._gradients.add(task, share=1 / len(tasks), last=number == len(tasks))
            seen.append({"loss": loss} | (parts if len(parts) > 1 else {}))
        self._optimizer.step()
        self.scale.clamp()
        return {name: float(np.mean([numbers[name] for numbers in seen])) for name in seen[0]}

    def state(self) -> dict[str, Any]:
        """Weights, optimiser, random numbers, texts, and how far the run is: everything but the data and the recipe."""
        mine = {
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self._device) if self._device.startswith("cuda") else None,
            "texts": self._text.state(),
        }
        return {
            "done": self._done,
            "tower": self._tower.state_dict(),
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "losses": list(self._losses),
            "means": list(self.means),
            "stopped": self._stopped,
            "ranks": self._ranks.everyones(mine),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, in a loop made from the same recipe and data, by as many processes."""
        self._tower.load_state_dict(state["tower"])
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])
        mine = state["ranks"][self._ranks.rank]
        torch.set_rng_state(mine["rng"])
        if mine["cuda_rng"] is not None:
            torch.cuda.set_rng_state(mine["cuda_rng"], self._device)
        self._text.restore(mine["texts"])
        self._done = state["done"]
        self._losses = list(state["losses"])
        self.means = list(state["means"])
        self._stopped = state["stopped"]


def _mixed(inputs: dict[str, Tensor], together: Tensor, recipe: Recipe, epoch: int, index: int) -> tuple[dict[str, Tensor], Tensor]:
    """With mixup, each item of a batch is blended with another, and so are their ``(n, n)`` targets; else what came in."""
    if not recipe.augment.mixup:
        return inputs, together
    partner, share = mix_weights(len(together), recipe.augment, np.random.default_rng([recipe.seed, 1, epoch, index]))
    own = torch.from_numpy(share)
    mixed = {}
    for name, tensor in inputs.items():
        weight = own.reshape(-1, *[1] * (tensor.ndim - 1))  # (n, 1, 1, ...)
        mixed[name] = weight * tensor + (1 - weight) * tensor[partner]
    return mixed, own[:, None] * together + (1 - own[:, None]) * together[partner]
