"""Low-rank adapters on attention projections, and what each way of tuning trains (the reference's table).

Adapters are merged into plain weights before a tower is saved or exported: nothing outside training knows them.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.towers.attention import PROJECTIONS
from training.towers.vit import VitTower

Tuning = Literal["lora", "full"]


class LoraConfig(BaseModel):
    """``y = W x + (alpha / rank) · B A x``, with dropout on x in front of A."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(2, gt=0, description="columns of A and B")
    alpha: float = Field(16.0, gt=0, description="the adapter counts alpha / rank times")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs left out")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class LoraLinear(nn.Module):
    """A linear layer with an adapter beside it. Starts equal to the layer, because B starts at zero."""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base
        self.scale = config.scale
        self.dropout = nn.Dropout(config.dropout)
        self.lora_a = nn.Parameter(base.weight.new_empty(config.rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, config.rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b)

    def merged(self) -> nn.Linear:
        """The base layer itself, its weight replaced by the merged one."""
        with torch.no_grad():
            self.base.weight.copy_(merged_weight(self.base.weight, self.lora_a, self.lora_b, self.scale))
        return self.base


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``W + scale · B @ A`` in float32: W (out, in), A (rank, in), B (out, rank)."""
    return weight.to(torch.float32) + scale * (b.to(torch.float32) @ a.to(torch.float32))


def lora_targets(tower: VitTower) -> tuple[str, ...]:
    """Names of the layers that the reference adapts: attention over time for video, over space for the others."""
    attention = "temporal_attention" if tower.config.temporal_attention else "attention"
    return tuple(f"layers.{i}.{attention}.{p}" for i in range(tower.config.layers) for p in PROJECTIONS)


def inject_lora(module: nn.Module, targets: tuple[str, ...], config: LoraConfig) -> None:
    """Put an adapter on each named linear layer, in place. Raises `ValueError` naming a target that is no linear layer."""
    for name in targets:
        base = module.get_submodule(name)
        if not isinstance(base, nn.Linear):
            raise ValueError(f"LoRA target {name!r} is a {type(base).__name__}, not a linear layer")
        module.set_submodule(name, LoraLinear(base, config))


def merge_lora(module: nn.Module) -> int:
    """Replace every adapted layer by its merged plain layer, in place. Returns how many there were."""
    adapted = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLinear)]
    for name, layer in adapted:
        module.set_submodule(name, layer.merged())
    return len(adapted)


_EITHER_WAY = r"class_embedding|post_norm\..*|projection\..*"
_TRAINED: dict[tuple[Tuning, bool], re.Pattern[str]] = {
    # (tuning, attention over time?) -> names that are trained; everything else is frozen: patch and position embedding,
    # pre_norm, MLPs and spatial norms always. "full" is not full: it is what the reference does without LoRA.
    ("lora", False): re.compile(rf"{_EITHER_WAY}|.*\.lora_[ab]"),
    ("lora", True): re.compile(rf"{_EITHER_WAY}|.*\.lora_[ab]|.*\.temporal_(embedding|norm\..*)"),
    ("full", False): re.compile(rf"{_EITHER_WAY}|.*\.attention\..*"),
    ("full", True): re.compile(rf"{_EITHER_WAY}|.*\.temporal_.*"),
}


def freeze_for(tower: VitTower, tuning: Tuning) -> tuple[str, ...]:
    """Set ``requires_grad`` of every parameter as the reference trains them; returns the trained names.

    For ``"lora"`` inject the adapters first. The text tower is frozen and the logit scale trained in both; neither is here.
    """
    rule = _TRAINED[tuning, tower.config.temporal_attention]
    trained = []
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(rule.fullmatch(name) is not None)
        if parameter.requires_grad:
            trained.append(name)
    return tuple(trained)
