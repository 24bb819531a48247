"""From items to batches: decoded by bindery's kinds, augmented, captioned; the order follows from the seed alone.

A file that cannot be decoded is skipped, once and for all, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bindery.decoded import Tensors
from bindery.errors import BinderyError
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.spec import Spec
from training.data.augment import Augment, augment
from training.data.manifest import Item
from training.data.shards import Files


@dataclass(frozen=True, slots=True)
class Batch:
    """One training step's items: the model's inputs by name, batch first, and one caption each. Empty when none could be read."""

    inputs: dict[str, Tensor]
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One item as one epoch sees it."""

    tensors: Tensors
    caption: str
    label: str
    id: str


class Batches(Protocol):
    """Gives the batches of an epoch; the same ones for the same seed and epoch."""

    steps: int
    """Batches in an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The `steps` batches of this epoch, or those from ``start`` on, which are the same ones."""
        ...


class Decoder:
    """Items to prepared tensors. Remembers what it could not read; may keep what it prepared."""

    def __init__(self, items: Sequence[Item], spec: Spec, *, keep: bool = False) -> None:
        """``keep``: hold every item's tensors in memory after its first decode (small sets only)."""
        self.items = items
        self.skipped: dict[str, str] = {}
        """Item id → why it was left out."""
        prepare = KINDS[spec.kind].prepare
        if prepare is None:
            raise ValueError(f"a manifest of media cannot be read with a spec of kind {spec.kind!r}")
        self._prepare = prepare
        self._spec = spec
        self._options = parse_options(spec.kind, {})
        self._limits = Limits()
        self._files = Files()
        self._kept: dict[int, Tensors] | None = {} if keep else None

    def tensors(self, index: int) -> Tensors | None:
        """The item's tensors without a batch axis; None when it is or was found unreadable. They must not be changed in place."""
        item = self.items[index]
        if item.id in self.skipped:
            return None
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        try:
            prepared = self._prepare(self._files.source(item), self._spec, self._options, self._limits)
        except BinderyError as error:
            self.skipped[item.id] = f"{type(error).__name__}: {error.detail}"
            return None
        if self._kept is not None:
            self._kept[index] = prepared.tensors
        return prepared.tensors


class MediaBatches:
    """Decodes, augments and captions items, some batches ahead, in threads."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        batch: int,
        seed: int,
        how: Augment,
        templates: Sequence[str] = (),
        threads: int = 1,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """``part``: (i, n): give the i-th of n equal parts of every batch; the n parts in a row are the batch."""
        self._decoder = decoder
        self._batch = batch
        self._seed = seed
        self._how = how
        self._templates = templates
        self._threads = threads
        self._part = part
        self.steps = steps_of(len(decoder.items), batch)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        order = epoch_order(len(self._decoder.items), self._seed, number)
        mine, parts = self._part
        with ThreadPoolExecutor(self._threads) as pool:
            chunks = [order[first : first + self._batch] for first in range(0, len(order), self._batch)][start : self.steps]
            chunks = [np.array_split(chunk, parts)[mine] for chunk in chunks]
            ahead = [pool.submit(self._example, int(i), number) for i in chunks[0]] if chunks else []
            for position in range(len(chunks)):
                current, ahead = ahead, []
                if position + 1 < len(chunks):
                    ahead = [pool.submit(self._example, int(i), number) for i in chunks[position + 1]]
                yield _stack([example for future in current if (example := future.result()) is not None])

    def _example(self, index: int, epoch: int) -> Example | None:
        tensors = self._decoder.tensors(index)
        if tensors is None:
            return None
        rng = item_rng(self._seed, epoch, index)
        item = self._decoder.items[index]
        changed = {name: augment(array, self._how, rng) for name, array in tensors.items()}
        return Example(changed, draw_caption(item, self._templates, rng), item.label, item.id)


def captions_of(item: Item, templates: Sequence[str]) -> list[str]:
    """Its own captions, and its label in every template; the bare label where it has neither."""
    said = [*item.captions, *(template.replace("{}", item.label) for template in templates if item.label)]
    return said or [item.label]


def draw_caption(item: Item, templates: Sequence[str], rng: np.random.Generator) -> str:
    captions = captions_of(item, templates)
    return captions[rng.integers(len(captions))]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    # One stream an item and epoch: what an item becomes does not depend on threads or on its neighbours.
    return np.random.default_rng([seed, epoch, index])


def steps_of(count: int, batch: int) -> int:
    """Full batches only (a small last one would be an easier contrast), but at least one."""
    return max(1, count // batch)


def _stack(examples: Sequence[Example]) -> Batch:
    names = examples[0].tensors if examples else ()
    inputs = {name: torch.from_numpy(np.stack([example.tensors[name] for example in examples])) for name in names}
    return Batch(inputs, tuple(e.caption for e in examples), tuple(e.label for e in examples), tuple(e.id for e in examples))
