"""One batch and its gradients, by however many processes: `torchrun -m tests.training.gradient_case OUT` writes what the first one has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from training.data.manifest import Item
from training.distill import Teacher
from training.feed import WholeTower
from training.gradients import ComputeRecipe, Gradients, Task
from training.lora import LoraConfig, freeze_for, inject_lora, lora_targets
from training.losses import positives
from training.objective import ContrastiveTerm, DistillTerm, Objective
from training.ranks import ALONE, Ranks, joined
from training.recompute import recompute_blocks
from training.towers.tower import unit
from training.towers.vit import VitConfig, VitTower

COUNT = 7
LABELS = tuple("abcabca")
IDS = tuple(f"item {n}" for n in range(COUNT))


def gradients(ranks: Ranks = ALONE, *, dropout: float = 0.0, seed: int = 1, **compute: Any) -> dict[str, torch.Tensor]:
    """Name → gradient, for everything that is trained, and the loss. Two losses, a teacher of another length, LoRA."""
    torch.manual_seed(0)
    tower = VitTower(
        VitConfig(width=32, layers=2, heads=2, mlp_width=64, patch=4, size=(16, 16), dimension=16, patch_dropout=dropout)
    ).train()
    inject_lora(tower, lora_targets(tower), LoraConfig(rank=4))
    freeze_for(tower, "lora")
    for name, parameter in tower.named_parameters():
        if name.endswith("lora_b"):
            torch.nn.init.normal_(parameter, std=0.1)  # at its zero, A would have no gradient
    items = [Item(id, Path(), id, None, (), "", "", "", "", "", "") for id in IDS[:5]]
    teacher = Teacher(np.random.default_rng(0).normal(size=(5, 6)), IDS[:5], items, "id")
    terms = [ContrastiveTerm(), DistillTerm(kind="distill", weight=0.5, teacher="t")]
    objective = Objective(terms, [teacher], dimension=16, temperature=0.07)
    pixels, text = torch.randn(COUNT, 3, 16, 16), unit(torch.randn(COUNT, 16))

    parts = np.array_split(np.arange(COUNT), ranks.count)
    mine = torch.from_numpy(parts[ranks.rank])
    recipe = ComputeRecipe(**compute)
    if recipe.recompute:
        assert recompute_blocks(tower) == 2
    task = Task({"pixel_values": pixels[mine]}, tuple(map(len, parts)), text, positives(LABELS, LABELS, "same_label"), IDS)
    torch.manual_seed(seed)
    loss, _ = Gradients(WholeTower(tower), objective, recipe, device="cpu", ranks=ranks).add(task)
    named = [*tower.named_parameters(), *objective.named_trained()]
    return {name: p.grad for name, p in named if p.grad is not None} | {"loss": torch.tensor(loss)}


if __name__ == "__main__":
    with joined("cpu") as (found, _):
        made = gradients(found, chunk=int(sys.argv[2]))
        if found.first:
            save_file(made, sys.argv[1])
