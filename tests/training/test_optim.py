from __future__ import annotations

import pytest
import torch
from torch import nn

from training.optim import OptimRecipe, build_optimizer, decays, rate_at, set_rate

RECIPE = OptimRecipe(epochs=1, batch=2, rate=1.0, warmup_steps=4)


def test_vectors_and_named_embeddings_do_not_decay() -> None:
    matrix, vector = torch.zeros(2, 2), torch.zeros(2)
    assert decays("layers.0.mlp.fc1.weight", matrix)
    assert not decays("layers.0.mlp.fc1.bias", vector)
    assert not decays("logit_scale", torch.zeros(()))
    assert not decays("class_embedding", matrix)
    assert not decays("patch_embedding.weight", torch.zeros(2, 2, 2, 2))


def test_frozen_parameters_are_in_no_group_and_factors_follow_the_longest_prefix() -> None:
    model = nn.ModuleDict({"trunk": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["trunk"].bias.requires_grad_(False)
    recipe = RECIPE.model_copy(update={"rate_factors": {"trunk": 0.1}})
    optimizer = build_optimizer(model.named_parameters(), recipe)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 3
    set_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model["trunk"].weight)] == pytest.approx(0.05)
    assert rates[id(model["head"].weight)] == pytest.approx(0.5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.2, 0.0}


def test_an_optimizer_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is trained"):
        build_optimizer([("w", nn.Parameter(torch.zeros(1), requires_grad=False))], RECIPE)


def test_the_rate_warms_up_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [rate_at(step, 14, RECIPE) for step in range(14)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0)
    assert rates[9] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.05
