"""CLIP's text tower: causal, and pooled at the end-of-text token, so padding behind it cannot matter."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bindery.bundle import TensorInfo
from training.towers.attention import Activation, Block
from training.towers.tower import Tower, TowerShape, unit


class ClipTextConfig(TowerShape):
    """Shape of a `ClipTextTower`."""

    architecture: Literal["clip_text"] = "clip_text"
    vocabulary: int = Field(49408, gt=2)
    context_length: int = Field(77, gt=2, description="tokens, special ones included")
    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    mlp_width: int = Field(gt=0)
    activation: Activation = "gelu"
    layer_norm_eps: float = Field(1e-5, gt=0)
    dimension: int = Field(gt=0, description="length of the vectors")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ClipTextTower(Tower):
    """``input_ids`` (batch, tokens ≤ context_length) int64."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.dimension = config.dimension
        self.longest_text = config.context_length
        self.inputs = (TensorInfo(name="input_ids", dtype="int64", shape=("batch", "tokens")),)
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.layers = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_width, config.activation, config.layer_norm_eps) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.width, config.dimension, bias=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.01)

    def forward(self, input_ids: Tensor) -> Tensor:
        return unit(self.projection(self.pooled(input_ids)))

    def pooled(self, input_ids: Tensor) -> Tensor:
        """``(batch, width)``: the normed token at the first position of the row's largest id, which is end-of-text."""
        length = input_ids.shape[1]
        tokens = self.token_embedding(input_ids) + self.position_embedding[:length]  # (batch, tokens, width)
        mask = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)  # no token sees a later one
        for layer in self.layers:
            tokens = layer(tokens, mask=mask)
        tokens = self.final_norm(tokens)
        end = input_ids.argmax(dim=-1)  # (batch,); the first of equal maxima
        return tokens.gather(1, end[:, None, None].expand(-1, -1, tokens.shape[-1])).squeeze(1)
