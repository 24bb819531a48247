from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from bindery.spec import ImageSpec, VideoSpec
from tests.training.toyset import COLOURS, DIMENSION, make_pictures, make_text_tower
from training.assembly import Places
from training.checkpoint import Checkpoints
from training.lora import LoraConfig, LoraLinear, freeze_for, inject_lora, lora_targets, merge_lora, merged_weight
from training.recipe import Recipe
from training.start import choose_trained, start_tower
from training.towers.package import load_tower, save_tower
from training.towers.vit import VitConfig, VitTower
from training.trainer import Saving, train

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


@pytest.mark.parametrize("rank", [2, 16])
@pytest.mark.parametrize("frames", [None, 2])
def test_trained_adapters_merge_into_the_same_tower(tmp_path: Path, rank: int, frames: int | None) -> None:
    """The package that a run wrote against the adapters of its last checkpoint, which are what was trained."""
    shape: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "mlp_width": 64, "patch": 4, "size": (16, 16), "dimension": DIMENSION}
    make_text_tower(tmp_path / "towers" / "text")
    make_pictures(tmp_path / "media", each=8)
    torch.manual_seed(4)
    picture = VitConfig(**shape)
    save_tower(tmp_path / "towers" / "picture", VitTower(picture), picture, ImageSpec(size=16))
    config = VitConfig(**shape, frames=frames, temporal_attention=frames is not None)
    if frames is not None:
        _make_clips(tmp_path / "media")
    recipe = Recipe.model_validate(
        {
            "name": "toy",
            "text": "text",
            "spec": ImageSpec(size=16) if frames is None else VideoSpec(size=16, frames=frames),
            "tower": {"start": "picture", "config": config, "train": "lora", "lora": {"rank": rank}},
            "data": {"manifest": "manifest.csv"},
            "optim": {"epochs": 5, "batch": 16, "rate": 1e-2},
        }
    )
    trained = train(recipe, Places(tmp_path / "media", tmp_path / "towers", tmp_path / "out"), saving=Saving(every=100))
    merged = load_tower(trained.package).module()
    adapted = start_tower(recipe.tower, tmp_path / "towers")
    choose_trained(adapted, recipe.tower)
    inputs = torch.randn(8, 3, *(() if frames is None else (frames,)), 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        untrained = adapted.eval()(inputs)
        found = Checkpoints(tmp_path / "out" / "checkpoints").newest()
        assert found is not None
        adapted.load_state_dict(found[1]["loop"]["tower"])
        unmerged = adapted.eval()(inputs)
        assert all(layer.lora_b.abs().max() > 1e-3 for layer in adapted.modules() if isinstance(layer, LoraLinear))
        torch.testing.assert_close(merged(inputs), unmerged, atol=1e-5, rtol=0)
        assert (unmerged - untrained).abs().max() > 0.01
        for layer in adapted.modules():
            if isinstance(layer, LoraLinear):
                layer.lora_b.zero_()
        assert (adapted(inputs) - unmerged).abs().max() > 1e-3  # the adapters alone make a difference, which was merged


def _make_clips(media: Path) -> None:
    """Replace the toy pictures by clips of two frames."""
    rows = []
    for number, (colour, rgb) in enumerate([*COLOURS.items()] * 4):
        with av.open(media / f"{number}.mp4", "w") as container:
            stream = container.add_stream("mpeg4", rate=2)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for frame in range(4):
                pixels = np.full((32, 32, 3), rgb, dtype=np.uint8)
                pixels[8 * frame : 8 * frame + 8] = 40 * (number % 5)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        rows.append(f"{number}.mp4,a picture of {colour} paint,train")
    (media / "manifest.csv").write_text("\n".join(["path,captions,split", *rows]) + "\n")
