from __future__ import annotations

import copy

import pytest
import torch

from training.lora import LoraConfig, LoraLinear, freeze_for, inject_lora, lora_targets, merge_lora, merged_weight
from training.towers.vit import VitConfig, VitTower

PICTURES = VitConfig(width=16, layers=2, heads=2, mlp_width=32, patch=4, size=(8, 8), dimension=6)
VIDEO = PICTURES.model_copy(update={"frames": 2, "temporal_attention": True})
LORA = LoraConfig(rank=2, alpha=16)


def _adapted(config: VitConfig, lora: LoraConfig = LORA) -> VitTower:
    torch.manual_seed(0)
    tower = VitTower(config).eval()
    inject_lora(tower, lora_targets(tower), lora)
    return tower


def _train_a_little(tower: VitTower) -> None:
    for name, parameter in tower.named_parameters():
        if name.endswith("lora_b"):
            torch.nn.init.normal_(parameter, std=0.05)


def test_adapters_go_to_space_for_pictures_and_to_time_for_video() -> None:
    assert lora_targets(VitTower(PICTURES)) == tuple(f"layers.{i}.attention.{p}" for i in (0, 1) for p in ("q", "k", "v", "out"))
    assert lora_targets(VitTower(VIDEO)) == tuple(f"layers.{i}.temporal_attention.{p}" for i in (0, 1) for p in ("q", "k", "v", "out"))


def test_a_fresh_adapter_changes_nothing() -> None:
    torch.manual_seed(0)
    plain, pictures = VitTower(PICTURES).eval(), torch.randn(2, 3, 8, 8)
    adapted = copy.deepcopy(plain)
    inject_lora(adapted, lora_targets(adapted), LORA)
    assert torch.equal(adapted(pictures), plain(pictures))


@pytest.mark.parametrize(("config", "shape"), [(PICTURES, (2, 3, 8, 8)), (VIDEO, (2, 3, 2, 8, 8))])
def test_merging_keeps_the_vectors_and_leaves_plain_layers(config: VitConfig, shape: tuple[int, ...]) -> None:
    tower, inputs = _adapted(config), torch.randn(shape)
    before = tower(inputs)
    _train_a_little(tower)
    trained = tower(inputs)
    assert not torch.allclose(trained, before, atol=1e-3)
    assert merge_lora(tower) == 8
    torch.testing.assert_close(tower(inputs), trained, rtol=0, atol=1e-6)
    assert tower.state_dict().keys() == VitTower(config).state_dict().keys()
    assert merge_lora(tower) == 0


def test_the_scale_is_alpha_over_rank() -> None:
    weight, a, b = torch.zeros(3, 4), torch.randn(2, 4), torch.randn(3, 2)
    assert torch.equal(merged_weight(weight, a, b, LORA.scale), 8 * (b @ a))


def test_the_merge_is_in_float32_whatever_the_weights_are() -> None:
    weight, a, b = torch.zeros(3, 4).half(), torch.randn(2, 4).half(), torch.randn(3, 2).half()
    merged = merged_weight(weight, a, b, 1.0)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, b.float() @ a.float())


def test_dropout_is_in_training_only() -> None:
    layer = LoraLinear(torch.nn.Linear(8, 8), LoraConfig(dropout=0.5))
    torch.nn.init.normal_(layer.lora_b)
    x = torch.randn(4, 8)
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_target_that_is_no_linear_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layers\.0\.norm1"):
        inject_lora(VitTower(PICTURES), ("layers.0.norm1",), LORA)


HEADS = {"class_embedding", "post_norm.weight", "post_norm.bias", "projection.weight"}


def _layers(*names: str) -> set[str]:
    return {f"layers.{i}.{name}" for i in (0, 1) for name in names}


def _projections(attention: str, *parts: str) -> set[str]:
    return _layers(*(f"{attention}.{p}.{part}" for p in ("q", "k", "v", "out") for part in parts))


TIME = _layers("temporal_embedding", "temporal_norm.weight", "temporal_norm.bias")


@pytest.mark.parametrize(
    ("config", "tuning", "trained"),
    [
        (PICTURES, "lora", HEADS | _projections("attention", "lora_a", "lora_b")),
        (VIDEO, "lora", HEADS | TIME | _projections("temporal_attention", "lora_a", "lora_b")),
        (PICTURES, "full", HEADS | _projections("attention", "weight", "bias")),
        (VIDEO, "full", HEADS | TIME | _projections("temporal_attention", "weight", "bias")),
    ],
)
def test_each_way_of_tuning_trains_what_the_reference_trains(config: VitConfig, tuning: str, trained: set[str]) -> None:
    tower = _adapted(config) if tuning == "lora" else VitTower(config)
    assert set(freeze_for(tower, tuning)) == trained  # type: ignore[arg-type]
    assert {name for name, parameter in tower.named_parameters() if parameter.requires_grad} == trained
