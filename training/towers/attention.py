"""The two blocks that every transformer tower is made of."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "quick_gelu"]

PROJECTIONS = ("q", "k", "v", "out")
"""The linear layers of an `Attention`, and so the places where LoRA can go."""


class Attention(nn.Module):
    """Multi-head self-attention with biases. ``(batch, tokens, width)`` → the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """``mask`` is added to the scores, broadcast to (batch, heads, tokens, tokens)."""
        q, k, v = (self._heads(project(tokens)) for project in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (batch, heads, tokens, width / heads)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (batch, tokens, width)

    def _heads(self, tokens: Tensor) -> Tensor:
        # (batch, tokens, width) -> (batch, heads, tokens, width / heads)
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with the activation between them. The config must say which: CLIP-like towers differ."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.fc1(tokens)
        hidden = F.gelu(hidden) if self.activation == "gelu" else hidden * torch.sigmoid(1.702 * hidden)
        return self.fc2(hidden)


class Block(nn.Module):
    """Pre-norm transformer layer: ``x += attention(norm1(x))``, ``x += mlp(norm2(x))``."""

    def __init__(self, width: int, heads: int, hidden: int, activation: Activation, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), mask=mask)
        return tokens + self.mlp(self.norm2(tokens))
