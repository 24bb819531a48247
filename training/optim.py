"""AdamW as CLIP and LanguageBind use it: which parameters decay, and a rate that warms up and falls along a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_NEVER_DECAY = ("class_embedding", "patch_embedding")


class OptimRecipe(BaseModel):
    """How long and how fast."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int | float = Field(gt=0, description="times that every item is drawn; 1.5: the second time only half of them")
    fall: int | float | None = Field(
        None, gt=0, description="epochs in which the rate falls to zero, where the run shall end before; left out: as many as the run has"
    )
    batch: int = Field(gt=1, description="items of one step; every one is the others' negative")
    rate: float = Field(gt=0, description="highest learning rate")
    rate_factors: dict[str, float] = Field({}, description="name or prefix of parameters → factor on their rate")
    warmup_steps: int = Field(0, ge=0, description="steps of the linear rise to `rate`; a cosine to zero follows")
    weight_decay: float = Field(0.2, ge=0, description="not on biases, norms, class and patch embeddings and the logit scale")
    betas: tuple[float, float] = Field((0.9, 0.98), description="of AdamW")
    eps: float = Field(1e-6, gt=0, description="of AdamW")


def is_within(name: str, prefix: str) -> bool:
    """Whether a parameter's name is ``prefix`` or lies below it (`trunk` → `trunk.stem.conv.weight`)."""
    return name == prefix or name.startswith(prefix + ".")


def decays(name: str, parameter: Tensor) -> bool:
    """Vectors (biases, norms), the logit scale, class and patch embeddings do not decay."""
    return parameter.ndim >= 2 and not any(part in _NEVER_DECAY for part in name.split("."))


def build_optimizer(named: Iterable[tuple[str, nn.Parameter]], recipe: OptimRecipe) -> Optimizer:
    """AdamW over the parameters that require a gradient, grouped by decay and rate factor."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            groups.setdefault((decays(name, parameter), _factor(name, recipe.rate_factors)), []).append(parameter)
    if not groups:
        raise ValueError("nothing is trained: no parameter requires a gradient")
    return AdamW(
        [
            {"params": parameters, "weight_decay": recipe.weight_decay if decay else 0.0, "factor": factor}
            for (decay, factor), parameters in groups.items()
        ],
        lr=recipe.rate,
        betas=recipe.betas,
        eps=recipe.eps,
    )


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The rate of this step, times each group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def rate_at(step: int, steps: int, recipe: OptimRecipe) -> float:
    """Rate of step 0..steps-1: linear warm-up to `rate`, then a cosine to 0."""
    if step < recipe.warmup_steps:
        return recipe.rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * progress))


def _factor(name: str, factors: Mapping[str, float]) -> float:
    """The factor of the longest prefix that fits, else 1."""
    fitting = [prefix for prefix in factors if is_within(name, prefix)]
    return factors[max(fitting, key=len)] if fitting else 1.0
