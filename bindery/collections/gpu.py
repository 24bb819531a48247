"""Scanning on a GPU, where a FAISS that knows GPUs is installed (`faiss-gpu`; the pinned `faiss-cpu` does not).

A segment's vectors are copied to the GPU's memory as float16 and all compared there; the best are compared again on the processor,
so a score is the same number either way. What does not fit, or breaks, is searched by code on the processor, and the log says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from bindery.vectors import Vectors

log = logging.getLogger(__name__)

MARGIN = 32
"""Rows beyond those asked for that are compared again: the GPU adds up in another order, so its ranking is off by a few places."""
_MOST_ROWS = 2048  # that a GPU index gives


def usable(wanted: Literal["auto", "cpu", "gpu"]) -> bool:
    """Whether segments go to a GPU; the log tells what was found, loudly when ``gpu`` was wanted and there is none."""
    if wanted == "cpu":
        return False
    knows = hasattr(faiss, "StandardGpuResources")
    devices = faiss.get_num_gpus() if knows else 0
    if devices:
        log.info("sealed segments are scanned on GPU 0 (FAISS %s sees %d)", faiss.__version__, devices)
        return True
    if wanted == "gpu":
        why = "sees no GPU" if knows else "is built without GPUs: install faiss-gpu in place of faiss-cpu"
        log.warning("sealed segments are scanned on the processor although a GPU was asked for: FAISS %s %s", faiss.__version__, why)
    return False


class GpuRows:
    """The vectors of one segment on GPU 0. Any thread may ask; one is answered at a time, as FAISS wants it."""

    def __init__(self, dimension: int, blocks: Iterator[Vectors]) -> None:
        """Copies ``blocks``, each ``(n, d)``. Raises `RuntimeError` when they do not fit."""
        gpu: Any = faiss  # the stubs of the processor's wheel know none of this
        self._turn = threading.Lock()
        self._resources = gpu.StandardGpuResources()  # must live as long as the index
        config = gpu.GpuIndexFlatConfig()
        config.useFloat16 = True
        config.device = 0
        self._index = gpu.GpuIndexFlatIP(self._resources, dimension, config)
        for rows in blocks:
            self._index.add(rows)

    def best(self, query: Vectors, count: int) -> NDArray[np.int64] | None:
        """Positions of the best ``count`` rows and a margin, in no order; None when a GPU does not give so many.

        Raises `RuntimeError` when the GPU does not work any more.
        """
        count += MARGIN
        if count > min(_MOST_ROWS, self._index.ntotal):
            return None
        with self._turn:
            places = self._index.search(query[None, :], count)[1][0]
        return np.asarray(places[places >= 0])
