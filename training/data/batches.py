"""From items to batches: decoded by bindery's kinds, augmented, captioned; the order follows from the seed alone.

A file that cannot be decoded is skipped, once and for all, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bindery.decoded import Tensors
from bindery.errors import BinderyError
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.spec import Spec
from training.data.augment import Augment, augment
from training.data.manifest import Item
from training.data.prepared import PreparedRows, is_prepared
from training.data.shards import Files, MemberMissing


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
        self._rows = PreparedRows()
        self._kept: dict[int, Tensors] | None = {} if keep else None

    def tensors(self, index: int) -> Tensors | None:
        """The item's tensors without a batch axis; None when it is or was found unreadable. They must not be changed in place."""
        item = self.items[index]
        if item.id in self.skipped:
            return None
        if is_prepared(item):
            return self._rows.tensors(item)
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        try:
            prepared = self._prepare(self._files.source(item), self._spec, self._options, self._limits)
        except BinderyError as error:
            self.skipped[item.id] = f"{type(error).__name__}: {error.detail}"
            return None
        except MemberMissing as error:
            self.skipped[item.id] = str(error)
            return None
        if self._kept is not None:
            self._kept[index] = prepared.tensors
        return prepared.tensors

    def __reduce__(self) -> Any:
        # For worker processes: what was found unreadable goes along, what was kept and opened does not.
        return _decoder_like, (self.items, self._spec, dict(self.skipped))


def _decoder_like(items: Sequence[Item], spec: Spec, skipped: dict[str, str]) -> Decoder:
    decoder = Decoder(items, spec)
    decoder.skipped.update(skipped)
    return decoder


@dataclass(frozen=True, slots=True)
class Draw:
    """One place of an epoch: which item, and the how-manieth time in this epoch."""

    epoch: int
    index: int
    again: int = 0


class Examples:
    """Draws to examples: decoded, augmented, captioned. What a draw becomes depends on the seed and on itself alone."""

    def __init__(self, decoder: Decoder, *, seed: int, how: Augment, templates: Sequence[str] = ()) -> None:
        self.decoder = decoder
        self._seed = seed
        self._how = how
        self._templates = templates

    def __getitem__(self, draw: Draw) -> Example | None:
        tensors = self.decoder.tensors(draw.index)
        if tensors is None:
            return None
        rng = item_rng(self._seed, draw.epoch, draw.index, draw.again)
        item = self.decoder.items[draw.index]
        changed = {name: augment(array, self._how, rng) for name, array in tensors.items()}
        return Example(changed, draw_caption(item, self._templates, rng), item.label, item.id)


class MediaBatches:
    """Decodes, augments and captions items, some batches ahead, in threads or in processes."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        batch: int,
        seed: int,
        how: Augment,
        templates: Sequence[str] = (),
        threads: int = 1,
        workers: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """``part``: (i, n): give the i-th of n equal parts of every batch; the n parts in a row are the batch."""
        self._examples = Examples(decoder, seed=seed, how=how, templates=templates)
        self._items = decoder.items
        self._batch = batch
        self._seed = seed
        self._part = part
        self._threads = threads
        self._workers = WorkerBatches(self._examples, workers) if workers else None
        self.steps = steps_of(len(decoder.items), batch)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        draws = epoch_draws(self._items, self._seed, number)
        mine, parts = self._part
        batches = [draws[step * self._batch : (step + 1) * self._batch] for step in range(start, self.steps)]
        chunks = [[batch[place] for place in np.array_split(np.arange(len(batch)), parts)[mine]] for batch in batches]
        return self._in_threads(chunks) if self._workers is None else self._workers.of(chunks)

    def _in_threads(self, chunks: Sequence[Sequence[Draw]]) -> Iterator[Batch]:
        with ThreadPoolExecutor(self._threads) as pool:
            ahead = [pool.submit(self._examples.__getitem__, draw) for draw in chunks[0]] if chunks else []
            for position in range(len(chunks)):
                current, ahead = ahead, []
                if position + 1 < len(chunks):
                    ahead = [pool.submit(self._examples.__getitem__, draw) for draw in chunks[position + 1]]
                yield stack([example for future in current if (example := future.result()) is not None])


class WorkerBatches:
    """Batches by processes that torch's loader keeps: they start once and decode two batches each ahead."""

    def __init__(self, examples: Examples, workers: int) -> None:
        self._decoder = examples.decoder
        self._plan = _Plan()
        self._loader: DataLoader[Any] = DataLoader(
            cast(Dataset[Any], examples),
            batch_sampler=self._plan,
            num_workers=workers,
            collate_fn=_Collate(examples.decoder),
            multiprocessing_context="spawn",  # a fork would copy locks that other threads hold
            persistent_workers=True,
            generator=torch.Generator(),  # its own: the loader must draw nothing from the run's random numbers
        )

    def of(self, chunks: Sequence[Sequence[Draw]]) -> Iterator[Batch]:
        self._plan.chunks = chunks
        for batch, skipped in self._loader:
            self._decoder.skipped.update(skipped)
            yield batch


class _Plan:
    """The draws of the batches to come, as torch's loader asks for them."""

    def __init__(self) -> None:
        self.chunks: Sequence[Sequence[Draw]] = ()

    def __iter__(self) -> Iterator[list[Draw]]:
        return (list(chunk) for chunk in self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class _Collate:
    """In a worker: examples to a batch, with all that this worker could not read so far."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __call__(self, examples: Sequence[Example | None]) -> tuple[Batch, dict[str, str]]:
        return stack([example for example in examples if example is not None]), dict(self._decoder.skipped)


def captions_of(item: Item, templates: Sequence[str]) -> list[str]:
    """Its own captions, and its label in every template; the bare label where it has neither, an empty text where nothing is said."""
    said = [*item.captions, *(template.replace("{}", item.label) for template in templates if item.label)]
    return said or [item.label]


def draw_caption(item: Item, templates: Sequence[str], rng: np.random.Generator) -> str:
    captions = captions_of(item, templates)
    return captions[rng.integers(len(captions))]


def epoch_order(count: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """``(count,)`` item numbers: each once, in an order that follows from seed and epoch.

    With ``weights``, an item comes count · weight / (sum of weights) times on the average, rounded up or down by chance.
    """
    rng = np.random.default_rng([seed, epoch])
    if weights is None:
        return rng.permutation(count)
    edges = np.cumsum(weights) * (count / weights.sum())
    drawn = np.searchsorted(edges, rng.random() + np.arange(count), side="right")
    return rng.permutation(np.minimum(drawn, count - 1))


def epoch_draws(items: Sequence[Item], seed: int, epoch: int) -> list[Draw]:
    """An epoch's places, in order."""
    weights = np.array([item.weight for item in items])
    order = epoch_order(len(items), seed, epoch, None if (weights == weights[0]).all() else weights)
    seen: Counter[int] = Counter()
    draws = []
    for index in map(int, order):
        draws.append(Draw(epoch, index, seen[index]))
        seen[index] += 1
    return draws


def item_rng(seed: int, epoch: int, index: int, again: int = 0) -> np.random.Generator:
    # One stream for each draw: what an item becomes does not depend on threads or on its neighbours.
    return np.random.default_rng([seed, epoch, index, again] if again else [seed, epoch, index])


def steps_of(count: int, batch: int) -> int:
    """Full batches only (a small last one would be an easier contrast), but at least one."""
    return max(1, count // batch)


def stack(examples: Sequence[Example]) -> Batch:
    names = examples[0].tensors if examples else ()
    inputs = {name: torch.from_numpy(np.stack([example.tensors[name] for example in examples])) for name in names}
    return Batch(inputs, tuple(e.caption for e in examples), tuple(e.label for e in examples), tuple(e.id for e in examples))
