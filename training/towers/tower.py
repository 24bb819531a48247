"""What every tower is: inputs by ONNX name in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from bindery.bundle import TensorInfo


class TowerShape(BaseModel):
    """Base of the configs: frozen data, tagged by `architecture`. Unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tower(nn.Module):
    """Base of the towers.

    ``forward(**inputs)`` takes batched tensors by the names in ``inputs`` and gives ``(batch, dimension)`` float32 rows of
    unit length, each row independent of the others. Everything a tower computes with is in its state dict (no buffer is
    left out of it), because packages are loaded onto a tower that was built without memory.
    """

    dimension: int
    inputs: tuple[TensorInfo, ...]
    """Names, dtypes and shapes, batch first; a string in a shape is an axis that may vary from call to call."""
    feature_width: int | None = None
    """Of a tower in two parts: how many features its trunk gives its head."""
    longest_text: int | None = None
    """Most tokens that a text tower takes."""

    def blocks(self) -> Sequence[nn.Module]:
        """The layers that stand in a row and hold most of the activations; empty where a tower has none to name."""
        return ()


def unit(vectors: Tensor) -> Tensor:
    """Rows divided by their L2 norm, in float32 even under autocast.

    The floor of 1e-12 only keeps a zero row finite; at any other norm the division is exact.
    """
    return F.normalize(vectors.to(torch.float32), dim=-1, eps=1e-12)
