"""BERT as a sentence encoder: post-norm layers, mean over the tokens that the mask keeps.

A sentence encoder only ever sees the first segment, so there is no segment table: importers add that one row to the positions.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from bindery.bundle import TensorInfo
from training.towers.attention import Activation, Attention, Mlp
from training.towers.tower import Tower, TowerShape, unit


class BertConfig(TowerShape):
    """Shape of a `BertTower`."""

    architecture: Literal["bert"] = "bert"
    vocabulary: int = Field(30522, gt=2)
    context_length: int = Field(512, gt=2, description="rows of the position table; tokens, special ones included")
    width: int = Field(gt=0, description="width of the layers and length of the vectors")
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    mlp_width: int = Field(gt=0)
    activation: Activation = "gelu"
    layer_norm_eps: float = Field(1e-12, gt=0)

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class BertTower(Tower):
    """``input_ids`` and ``attention_mask`` (batch, tokens ≤ context_length) int64; mask 1 = a token, 0 = padding."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.dimension = config.width
        self.longest_text = config.context_length
        self.inputs = tuple(TensorInfo(name=name, dtype="int64", shape=("batch", "tokens")) for name in ("input_ids", "attention_mask"))
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.context_length, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(PostNormBlock(config) for _ in range(config.layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        length = input_ids.shape[1]
        tokens = self.token_embedding(input_ids) + self.position_embedding.weight[:length]
        tokens = self.norm(tokens)  # (batch, tokens, width)
        kept = attention_mask.to(tokens.dtype)
        hidden = ((1 - kept) * -1e9)[:, None, None, :]  # (batch, 1, 1, tokens): added to every head's scores
        for layer in self.layers:
            tokens = layer(tokens, mask=hidden)
        kept = kept.unsqueeze(-1)  # (batch, tokens, 1)
        return unit((tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1))


class PostNormBlock(nn.Module):
    """``x = norm1(x + attention(x))``, ``x = norm2(x + mlp(x))``: the older order, with the norms after the sums."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.norm1 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.mlp = Mlp(config.width, config.mlp_width, config.activation)
        self.norm2 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor, *, mask: Tensor) -> Tensor:
        tokens = self.norm1(tokens + self.attention(tokens, mask=mask))
        return self.norm2(tokens + self.mlp(tokens))
