"""The processes of one run: `torchrun` starts them, each takes its share of every batch, and all keep the same weights."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

_PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others: rank 0 alone validates and writes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of them. The default is a run of one process, where nothing is exchanged."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that reports and writes."""
        return self.rank == 0

    def everyones(self, value: T) -> list[T]:
        """Each rank's ``value``, in their order. Every rank must ask."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return cast(list[T], values)

    def firsts(self, value: T | None) -> T:
        """The first rank's ``value``, to all."""
        if self.count == 1:
            return cast(T, value)
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return cast(T, values[0])

    def rows(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """All ranks' ``(k, d)`` rows, one below the other in the ranks' order: ``(sum of counts, d)``. No gradient flows through."""
        if self.count == 1:
            return own.detach()
        longest = max(counts)
        padded = own.new_zeros(longest, own.shape[1])  # the ranks' rows differ in number when a file could not be read
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the mean over the ranks."""
        if self.count > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.count


ALONE = Ranks()


def is_launched() -> bool:
    """Whether `torchrun` started this process."""
    return dist.is_torchelastic_launched()


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """Meet the other processes of a `torchrun`; gives this one's place and its device (``cuda`` becomes the node's n-th).

    Without `torchrun`: a run of one process on ``device``.
    """
    if not is_launched():
        yield ALONE, device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{dist.get_node_local_rank()}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
        dist.barrier()  # who is done first would close lines that another one still reads from
    finally:
        gc.collect()  # what still holds the group, in a cycle, would keep its threads until the interpreter ends, which then aborts
        dist.destroy_process_group()
