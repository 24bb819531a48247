"""Label vectors: what a label points at in the space, computed once and kept in a bounded cache."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from bindery.engine.engine import Engine
from bindery.engine.lanes import Priority
from bindery.errors import BinderyError
from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from service.observe import Metrics

Key = tuple[str, str, str, tuple[str, ...]]
"""The bundle's digest, the precision it runs in, a label, and the templates that it was averaged over."""

CAPACITY = 20_000  # at 768 float32 each: 60 MB
TEXTS_AT_ONCE = 64  # a thousand labels in a hundred templates must not fill the queue for everyone else


class LabelVectors:
    def __init__(self, metrics: Metrics, capacity: int = CAPACITY) -> None:
        self._metrics = metrics
        self._capacity = capacity
        self._kept: OrderedDict[Key, Vectors] = OrderedDict()
        self._ahead: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, engine: Engine, labels: Sequence[str], ways: Iterable[Sequence[str]]) -> None:
        """Compute the labels' vectors for each list of templates while others are served first, so that they are there when asked for."""
        task = asyncio.create_task(self._compute(engine, labels, ways), name="label-vectors")
        self._ahead.add(task)
        task.add_done_callback(self._ahead.discard)

    async def stop(self) -> None:
        for task in self._ahead:
            task.cancel()
        await asyncio.gather(*self._ahead, return_exceptions=True)

    async def of(
        self,
        engine: Engine,
        labels: Sequence[str],
        templates: Sequence[str],
        deadline: float | None,
        priority: Priority = "interactive",
    ) -> Vectors:
        """``(L, d)`` unit vectors in the labels' order. Raises `InvalidParameter` and what the engine raises."""
        expand_labels(labels, templates)  # complains about blank labels and broken templates before anything is embedded
        ways = tuple(templates)
        keys: dict[str, Key] = {label: (engine.bundle.digest, engine.policy.precision, label, ways) for label in labels}
        found = {label: self._kept[key] for label, key in keys.items() if key in self._kept}
        missing = list(dict.fromkeys(label for label in labels if label not in found))
        self._metrics.label_cache.labels("hit").inc(len(found))
        self._metrics.label_cache.labels("miss").inc(len(missing))
        if missing:
            texts = await _embed_texts(engine, expand_labels(missing, ways), deadline, priority)
            found.update(zip(missing, label_vectors(texts, len(ways)), strict=True))
        for label, vector in found.items():
            self._keep(keys[label], vector)
        return np.stack([found[label] for label in labels])

    async def _compute(self, engine: Engine, labels: Sequence[str], ways: Iterable[Sequence[str]]) -> None:
        for templates in ways:
            with contextlib.suppress(BinderyError):  # whoever asks for them gets the error, if it is still there
                await self.of(engine, labels, templates, None, "batch")

    def _keep(self, key: Key, vector: Vectors) -> None:
        self._kept[key] = vector
        self._kept.move_to_end(key)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)


async def _embed_texts(engine: Engine, texts: Sequence[str], deadline: float | None, priority: Priority) -> Vectors:
    modality = engine.bundle.text_modality()
    rows: list[Vectors] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        several = texts[start : start + TEXTS_AT_ONCE]
        embedded = await asyncio.gather(*(engine.embed(modality, text, deadline=deadline, priority=priority) for text in several))
        rows += [one.vector for one in embedded]
    return np.stack(rows)
