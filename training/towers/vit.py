"""The vision tower of every modality that is looked at: pictures, video, log-mel pictures, depth, thermal.

One class; what differs (grid, frames, attention over time) is in its config.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bindery.bundle import TensorInfo
from training.towers.attention import Activation, Attention, Block
from training.towers.tower import Tower, TowerShape, unit


class VitConfig(TowerShape):
    """Shape of a `VitTower`."""

    architecture: Literal["vit"] = "vit"
    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0, description="never derived from the width: the Huge tower has heads of 80")
    mlp_width: int = Field(gt=0)
    activation: Activation = "gelu"
    layer_norm_eps: float = Field(1e-5, gt=0)
    patch: int = Field(14, gt=0, description="side of a square patch, px")
    size: tuple[int, int] = Field(
        (224, 224), description="height and width of the picture, px; what fills no whole patch at the far edges is not seen"
    )
    channels: int = Field(3, gt=0)
    frames: int | None = Field(None, gt=0, description="None: takes pictures; a number: takes clips of exactly so many frames")
    temporal_attention: bool = Field(False, description="attention over time before the spatial one, in every layer")
    class_token_per_frame: bool = Field(False, description="the v1.5 video towers: one class token for each frame")
    dimension: int = Field(gt=0, description="length of the vectors")
    patch_dropout: float = Field(0.0, ge=0, lt=1, description="share of the patches left out, in training only")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if min(self.size) < self.patch:
            raise ValueError(f"size {self.size} holds no patch of {self.patch} x {self.patch}")
        if self.frames is None and (self.temporal_attention or self.class_token_per_frame):
            raise ValueError("temporal_attention and class_token_per_frame need frames")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across; not square for log-mel pictures."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]


class VitTower(Tower):
    """``pixel_values`` (batch, channels, height, width), or (batch, channels, frames, height, width) for clips."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.dimension = config.dimension
        frames = () if config.frames is None else (config.frames,)
        self._picture = (config.channels, *frames, *config.size)
        self.inputs = (TensorInfo(name="pixel_values", dtype="float32", shape=("batch", *self._picture)),)

        self.patch_embedding = nn.Conv2d(config.channels, config.width, config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(*(frames if config.class_token_per_frame else ()), config.width))
        self.position_embedding = nn.Parameter(torch.empty(1 + config.patches, config.width))  # row 0: class token; patches row by row
        self.pre_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.width, config.dimension, bias=False)
        for parameter in (self.class_embedding, self.position_embedding):
            nn.init.normal_(parameter, std=config.width**-0.5)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return unit(self.projection(self.pooled(pixel_values)))

    def pooled(self, pixel_values: Tensor) -> Tensor:
        """``(batch, width)``: the class token after the last norm, averaged over the frames, before the projection."""
        if pixel_values.shape[1:] != self._picture:
            # A wrong frame count can divide the batch by chance and would then mix the frames of two clips.
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; this tower takes (batch, {', '.join(map(str, self._picture))})"
            )
        frames = self.config.frames or 1
        if self.config.frames is not None:
            pixel_values = pixel_values.transpose(1, 2).flatten(0, 1)  # (batch * frames, channels, height, width), frames innermost
        tokens = self.pre_norm(self._drop_patches(self._embed(pixel_values, frames), frames))
        for layer in self.layers:
            tokens = layer(tokens)
        classes = self.post_norm(tokens[:, 0])  # (batch * frames, width)
        return classes.unflatten(0, (-1, frames)).mean(dim=1)

    def _embed(self, pictures: Tensor, frames: int) -> Tensor:
        patches = self.patch_embedding(pictures).flatten(2).transpose(1, 2)  # (batch * frames, patches, width)
        classes = self.class_embedding.expand(frames, -1).unsqueeze(1)  # (frames, 1, width)
        classes = classes.repeat(patches.shape[0] // frames, 1, 1)  # (batch * frames, 1, width)
        return torch.cat([classes, patches], dim=1) + self.position_embedding

    def _drop_patches(self, tokens: Tensor, frames: int) -> Tensor:
        """Training only: keep the class token and int(n * (1 - p)) random patches, the same ones in all frames of a clip."""
        if not self.training or self.config.patch_dropout == 0:
            return tokens
        rows, length, width = tokens.shape  # (batch * frames, 1 + patches, width)
        kept = max(1, int((length - 1) * (1 - self.config.patch_dropout)))
        chosen = torch.rand(rows // frames, length - 1, device=tokens.device).topk(kept, dim=1).indices + 1  # (batch, kept)
        chosen = chosen.repeat_interleave(frames, dim=0).unsqueeze(-1).expand(-1, -1, width)  # (batch * frames, kept, width)
        return torch.cat([tokens[:, :1], tokens.gather(1, chosen)], dim=1)


def _layer(config: VitConfig) -> Block:
    shape = (config.width, config.heads, config.mlp_width, config.activation, config.layer_norm_eps)
    if config.temporal_attention and config.frames is not None:
        return VideoBlock(*shape, frames=config.frames)
    return Block(*shape)


class VideoBlock(Block):
    """A `Block` that first mixes the frames of each token position, the class token's included."""

    def __init__(self, width: int, heads: int, hidden: int, activation: Activation, eps: float, *, frames: int) -> None:
        super().__init__(width, heads, hidden, activation, eps)
        self.frames = frames
        self.temporal_embedding = nn.Parameter(torch.empty(1, frames, width))
        self.temporal_norm = nn.LayerNorm(width, eps=eps)
        self.temporal_attention = Attention(width, heads)
        nn.init.normal_(self.temporal_embedding, std=width**-0.5)

    def forward(self, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return super().forward(self._over_time(tokens), mask=mask)

    def start_from_space(self) -> None:
        """Make attention over time a copy of attention over space: where the reference's training starts from."""
        self.temporal_attention.load_state_dict(self.attention.state_dict())
        self.temporal_norm.load_state_dict(self.norm1.state_dict())

    def _over_time(self, tokens: Tensor) -> Tensor:
        clips = tokens.unflatten(0, (-1, self.frames)).transpose(1, 2)  # (batch, tokens, frames, width)
        lines = clips.flatten(0, 1)  # (batch * tokens, frames, width)
        if self.frames > 1:  # the reference adds no time embedding to a single frame
            lines = lines + self.temporal_embedding
        lines = lines + self.temporal_attention(self.temporal_norm(lines))
        clips = lines.unflatten(0, (-1, tokens.shape[1])).transpose(1, 2)  # (batch, frames, tokens, width)
        return clips.flatten(0, 1)  # (batch * frames, tokens, width)
