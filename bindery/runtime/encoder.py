"""The `Encoder` seam: what every runtime gives to the rest of the house."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from bindery.decoded import Tensors
from bindery.vectors import Vectors


class Encoder(Protocol):
    """One graph on one device.

    ``encode`` takes batched tensors (batch first) and gives ``(batch, dimension)`` float32 rows of unit length, row i
    for item i, whatever the other rows are (within 1e-5). A batch larger than ``max_batch`` is run in pieces. It may be
    called from any thread, one call at a time. A result that is not finite raises `InternalError`; it never leaves.
    """

    dimension: int
    max_batch: int
    precision: str
    device: str  # "cpu" or "cuda"
    runtime: str  # name and version, "onnxruntime 1.31.1"
    provider: str  # the runtime's own name of what executes
    input_names: tuple[str, ...]

    def encode(self, tensors: Tensors) -> Vectors: ...


@runtime_checkable
class Staging(Protocol):
    """An `Encoder` on a device with memory of its own: a batch can be brought there while the one before is computed."""

    def stage(self, tensors: Tensors) -> Callable[[], Vectors]:
        """As `encode`, in two steps: this one from any thread while a run goes on, for one batch at a time; calling what is
        returned is the second, where `encode` would be called."""
        ...
