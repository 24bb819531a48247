"""Gradients of one contrastive batch, in however many chunks and processes it is computed: always those of the whole batch.

The loss sees only vectors. So the vectors come first, chunk by chunk and without a graph; the loss of all of them gives a gradient
for each vector; then each chunk goes through the tower once more, with the same random numbers, and takes its vectors' gradients
back to the weights (GradCache, Gao et al. 2021). Memory is that of one chunk. Other processes' vectors are rows like any others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.objective import Objective
from training.ranks import Ranks

Inputs = dict[str, Tensor]


class ComputeRecipe(BaseModel):
    """How a step is computed: memory and speed. Only `accumulate` changes what a step means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["float32", "bf16"] = Field("float32", description="bf16: the tower under autocast; weights and losses stay float32")
    chunk: int = Field(0, ge=0, description="items that go through the tower at once, on each process; 0: the whole batch")
    accumulate: int = Field(1, gt=0, description="batches whose gradients are averaged for one step; each contrasts its own items only")
    recompute: bool = Field(False, description="forget activations inside the tower's blocks and compute them again on the way back")


@dataclass(frozen=True, slots=True)
class Task:
    """One batch as its loss sees it: this process's inputs, and every process's words in the order of the ranks."""

    inputs: Inputs
    counts: tuple[int, ...]
    """Items of each rank; their sum is n."""
    text: Tensor  # (n, d) unit rows
    together: Tensor  # (n, n)
    ids: tuple[str, ...]


class Gradients:
    """Adds a batch's gradients to the tower's and the objective's parameters."""

    def __init__(self, encode: nn.Module, objective: Objective, compute: ComputeRecipe, *, device: str, ranks: Ranks) -> None:
        self._encode = encode
        self._spread = _spread(encode, device) if ranks.count > 1 else None
        self._objective = objective
        self._compute = compute
        self._device = device
        self._ranks = ranks

    def add(self, task: Task, *, share: float = 1.0, last: bool = True) -> tuple[float, dict[str, float]]:
        """The gradients of ``share`` times the loss. Gives the loss of the whole batch and its parts.

        ``last``: no other batch belongs to this step, so the processes exchange what they have.
        """
        chunks = list(_chunks(task.inputs, self._compute.chunk))
        states = [_random_state(self._device)]
        if len(chunks) == 1:
            with self._exchange(last):
                media = self._vectors(self._spread or self._encode, chunks[0])
        else:
            rows = []
            with torch.no_grad():
                for chunk in chunks:
                    rows.append(self._vectors(self._encode, chunk))
                    states.append(_random_state(self._device))
            media = torch.cat(rows)
        everything = self._ranks.rows(media, task.counts).requires_grad_()
        loss, parts = self._objective(everything, task.text, task.together, task.ids)
        (loss * share).backward()
        assert everything.grad is not None
        first = sum(task.counts[: self._ranks.rank])
        wanted = everything.grad[first : first + len(media)] * self._ranks.count  # the exchange divides by it again
        if len(chunks) == 1:
            with self._exchange(last):
                media.backward(wanted)
        else:
            for number, (chunk, part) in enumerate(zip(chunks, wanted.split(self._compute.chunk), strict=True)):
                _set_random_state(self._device, states[number])
                with self._exchange(last and number + 1 == len(chunks)):
                    self._vectors(self._spread or self._encode, chunk).backward(part)
        if last:
            self._ranks.average(self._objective.parameters())
        return loss.item(), parts

    def _vectors(self, encode: nn.Module, inputs: Inputs) -> Tensor:
        with torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._compute.precision == "bf16"):
            return encode({name: tensor.to(self._device) for name, tensor in inputs.items()})

    def _exchange(self, now: bool) -> AbstractContextManager[None]:
        return nullcontext() if self._spread is None or now else self._spread.no_sync()


def _spread(encode: nn.Module, device: str) -> DistributedDataParallel:
    # Statistics of frozen norms are the same everywhere, and trained ones are refused: there is no buffer to pass round.
    return DistributedDataParallel(encode, device_ids=[device] if device.startswith("cuda") else None, broadcast_buffers=False)


def _chunks(inputs: Inputs, size: int) -> Iterator[Inputs]:
    count = len(next(iter(inputs.values())))
    for start in range(0, count, size or count):
        yield {name: tensor[start : start + (size or count)] for name, tensor in inputs.items()}


def _random_state(device: str) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.startswith("cuda") else None


def _set_random_state(device: str, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
