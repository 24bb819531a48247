"""Motion between a clip's frames, found by matching blocks: where each part of a frame lies in the next one.

Nothing here is learned. What a picture trunk sees of each frame by itself says little of how the camera moved; a field of shifts says it.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from training.towers.tower import TowerShape

_AROUND = 5
"""Side of the square of points whose mean and deviation a point is measured by, so that light and contrast do not count."""
_FLAT = 0.01
"""Added to that variance, in units of the prepared tensor: an even wall does not become noise."""


class MotionConfig(TowerShape):
    """Shape of a `Motion` and of what the head makes of it."""

    grid: int = Field(28, gt=1, description="rows and columns of points that a frame is reduced to; divides its height and width")
    reach: tuple[int, int] = Field((4, 6), description="greatest shift that is tried, down and across, in points")
    cells: int = Field(4, gt=0, description="blocks in each direction; every one has a shift of its own")
    sharpness: float = Field(30.0, gt=0, description="how much the best matching shift outweighs the others")
    hidden: int = Field(64, gt=0, description="width of the hidden layer between the shifts and the vector")

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        if min(self.reach) < 1 or any(side < self.cells for side in self.inner):
            raise ValueError(f"a grid of {self.grid} leaves no {self.cells} blocks a side that can move by {self.reach}")
        return self

    @property
    def inner(self) -> tuple[int, int]:
        """Rows and columns of points whose every shift stays inside the next frame."""
        return self.grid - 2 * self.reach[0], self.grid - 2 * self.reach[1]

    @property
    def width(self) -> int:
        """Values for a pair of frames: across and down for each block."""
        return 2 * self.cells**2


class Motion(nn.Module):
    """``(batch, channels, frames, height, width)`` → ``(batch, frames, values)``: shifts to the next frame, as shares of the reach.

    First the blocks' shifts across, row by row, then those down. The last frame has no next one: its row is 0.
    """

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        down, across = config.reach
        count = (2 * down + 1) * (2 * across + 1)
        # Each kernel picks one neighbour: a convolution lays all shifts of a frame on top of each other.
        self.register_buffer("picks", torch.eye(count).view(count, 1, 2 * down + 1, 2 * across + 1))
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, 2 * down + 1), torch.linspace(-1, 1, 2 * across + 1), indexing="ij")
        self.register_buffer("shifts", torch.stack([columns.flatten(), rows.flatten()]))  # (2, shifts)

    picks: Tensor
    shifts: Tensor

    def forward(self, clips: Tensor) -> Tensor:
        frames = clips.shape[2]
        points = self._points(clips)  # (batch, frames, grid, grid)
        before, after = points[:, :-1].flatten(0, 1).unsqueeze(1), points[:, 1:].flatten(0, 1).unsqueeze(1)
        down, across = self.config.reach
        tall, wide = self.config.inner
        before = before[:, :, down : down + tall, across : across + wide]
        apart = (F.conv2d(after, self.picks) - before).square()  # (pairs, shifts, tall, wide)
        blocks = F.avg_pool2d(apart, (tall // self.config.cells, wide // self.config.cells))
        blocks = blocks[:, :, : self.config.cells, : self.config.cells].flatten(2)  # (pairs, shifts, blocks)
        likely = (-self.config.sharpness * blocks).softmax(dim=1)
        field = (self.shifts @ likely).flatten(1)  # (pairs, 2 * blocks)
        return F.pad(field.unflatten(0, (-1, frames - 1)), (0, 0, 0, 1))

    def _points(self, clips: Tensor) -> Tensor:
        height, width = clips.shape[-2:]
        grey = F.avg_pool2d(clips.mean(dim=1), (height // self.config.grid, width // self.config.grid))
        mean = _around(grey)
        return (grey - mean) / (_around((grey - mean).square()) + _FLAT).sqrt()


def _around(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, _AROUND, stride=1, padding=_AROUND // 2, count_include_pad=False)


class MotionHead(nn.Module):
    """``(batch, frames, values)`` of a `Motion` → ``(batch, dimension)``, to be added to what the frames show. Says nothing at first."""

    def __init__(self, config: MotionConfig, dimension: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.width, config.hidden)
        self.out = nn.Linear(config.hidden, dimension)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, shifts: Tensor) -> Tensor:
        steady = shifts.sum(dim=1) / (shifts.shape[1] - 1)  # the last frame's row is 0
        return self.out(F.gelu(self.hidden(steady)))
