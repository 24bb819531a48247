"""Prepared tensors as items: rows of an .npy that a manifest names as a shard. For sets that were mixed and judged by a teacher before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bindery.decoded import Tensors
from training.data.manifest import Item, ManifestError

INPUT = "pixel_values"


def is_prepared(item: Item) -> bool:
    return item.shard is not None and item.shard.endswith(".npy")


class PreparedRows:
    """Opens arrays once and reads rows in place."""

    def __init__(self) -> None:
        self._arrays: dict[Path, np.ndarray] = {}

    def tensors(self, item: Item) -> Tensors:
        """Row ``item.path`` of ``item.shard`` as float32. Raises `ManifestError` where there is no such array or row."""
        assert item.shard is not None
        path = item.root / item.shard
        try:
            if path not in self._arrays:
                self._arrays[path] = np.load(path, mmap_mode="r", allow_pickle=False)
            return {INPUT: np.asarray(self._arrays[path][int(item.path)], dtype=np.float32)}
        except (OSError, ValueError, IndexError) as error:
            raise ManifestError(f"{path}, row {item.path} cannot be read: {error}") from error
