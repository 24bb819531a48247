"""Items for tests, the same for the same number."""

from __future__ import annotations

from typing import Any

import numpy as np

from bindery.collections import Item
from bindery.vectors import Vectors, normalize

DIMENSION = 24
FIELDS = {"place": "keyword", "count": "integer", "weight": "number", "fresh": "boolean", "taken": "datetime"}
MODALITIES = ("text", "image", "audio")


def vector(seed: int, dimension: int = DIMENSION) -> Vectors:
    return normalize(np.random.default_rng(seed).standard_normal(dimension))


def item(seed: int, id: str | None = None, **changes: Any) -> Item:
    given: dict[str, Any] = {
        "id": f"item-{seed}" if id is None else id,
        "modality": MODALITIES[seed % 3],
        "vector": vector(seed),
        "uri": f"file-{seed // 4}.bin",
        "start": float(seed % 7),
        "end": float(seed % 7 + 1),
        "metadata": {
            "place": ("yard", "hall", "roof")[seed % 3],
            "count": seed,
            "weight": seed / 7,
            "fresh": seed % 2 == 0,
            "taken": f"2026-01-{seed % 28 + 1:02}T12:00:00Z",
        },
    }
    return Item(**{**given, **changes})
