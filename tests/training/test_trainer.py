from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bindery.spec import ImageSpec
from tests.training.toyset import DIMENSION, make_pictures, make_text_tower
from training.assembly import Places
from training.data.batches import Decoder
from training.data.manifest import read_manifest
from training.features import HeadedTower
from training.feed import split_off
from training.metrics import top_k
from training.recipe import Recipe, RecipeError
from training.start import choose_trained, set_training, start_tower
from training.text import PackageText
from training.towers.build import build_tower
from training.towers.convnet import ConvNetConfig, ConvNetTower, Stage
from training.towers.package import load_tower, save_tower
from training.towers.vit import VideoBlock, VitConfig, VitTower
from training.trainer import Trained, train

VIT = VitConfig(width=32, layers=2, heads=2, mlp_width=64, patch=4, size=(16, 16), dimension=DIMENSION, patch_dropout=0.25)
STAGES = (Stage(kernel=3, stride=2, expand=2, channels=8, blocks=2),)
CONV = ConvNetConfig(size=(16, 16), stem=8, stages=STAGES, features=32, dimension=DIMENSION, hidden=16)
SPEC = ImageSpec(size=16)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    make_text_tower(tmp_path / "towers" / "text")
    torch.manual_seed(1)
    save_tower(tmp_path / "towers" / "vit", VitTower(VIT), VIT, SPEC)
    save_tower(tmp_path / "towers" / "conv", ConvNetTower(CONV), CONV, SPEC)
    make_pictures(tmp_path / "media", each=12, bad=1, val=5)
    return Places(tmp_path / "media", tmp_path / "towers", tmp_path / "out")


def _recipe(tower: dict[str, Any], **parts: Any) -> Recipe:
    made: dict[str, Any] = {
        "name": "toy",
        "text": "text",
        "prompts": ["a photo of {}"],
        "spec": SPEC,
        "tower": tower,
        "data": {"manifest": "manifest.csv", "templates": ["a photo of {}"]},
        "loss": {"positives": "same_label"},
        "optim": {"epochs": 12, "batch": 16, "rate": 3e-3, "warmup_steps": 4},
    }
    return Recipe.model_validate(made | parts)


def _val_accuracy(trained: Trained, places: Places) -> float:
    package = load_tower(trained.package)
    items = read_manifest(places.media / "manifest.csv", split="val")
    labels = sorted({item.label for item in items})
    tensors = [Decoder(items, package.spec).tensors(i) for i in range(len(items))]
    pixels = torch.stack([torch.from_numpy(t["pixel_values"]) for t in tensors if t is not None])
    classes = PackageText(load_tower(places.towers / "text")).arrays([f"a photo of {label}" for label in labels])
    with torch.no_grad():
        scores = package.module()(pixels).numpy() @ classes.T
    return top_k(scores, [labels.index(item.label) for item in items], 1).value


def test_a_vit_with_lora_and_patch_dropout_learns_and_only_the_right_parts_change(places: Places) -> None:
    trained = train(_recipe({"start": "vit", "train": "lora", "lora": {"rank": 4}}), places)
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    assert _val_accuracy(trained, places) >= 0.75  # chance: 0.25
    before, after = load_file(places.towers / "vit" / "weights.safetensors"), load_file(trained.package / "weights.safetensors")
    assert before.keys() == after.keys()  # merged: no trace of adapters
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    attention = {name for name in before if ".attention." in name and name.endswith("weight")}
    assert changed == attention | {"class_embedding", "post_norm.weight", "post_norm.bias", "projection.weight"}


def test_the_text_tower_is_never_touched(places: Places) -> None:
    weights = places.towers / "text" / "weights.safetensors"
    before = weights.read_bytes()
    text = PackageText(load_tower(places.towers / "text"))
    train(_recipe({"start": "vit", "train": "full"}, optim={"epochs": 1, "batch": 16, "rate": 1e-3}), places)
    assert weights.read_bytes() == before
    assert not any(parameter.requires_grad for parameter in text._tower.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(places: Places) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        recipe = _recipe(
            {"start": "vit", "train": "lora"},
            seed=seed,
            augment={"flip": True, "mixup": 0.2},
            optim={"epochs": 2, "batch": 16, "rate": 1e-3},
        )
        return load_file(train(recipe, places).package / "weights.safetensors")

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["projection.weight"], other["projection.weight"])


def test_prompts_that_do_harm_on_the_items_kept_aside_do_not_travel(places: Places) -> None:
    """One template names every label alike: with it all labels are nearer to each other."""
    told = _recipe(
        {"start": "vit", "train": "lora"},
        prompts=["a photo of {}", "blue blue blue blue {}"],
        choose_prompts=True,
        data={"manifest": "manifest.csv", "templates": ["a photo of {}"], "held_out": 0.3},
    )
    assert load_tower(train(told, places).package).prompts == ("a photo of {}",)
    plain = told.model_copy(update={"choose_prompts": False})
    assert load_tower(train(plain, places).package).prompts == told.prompts


def test_bad_files_are_skipped_and_counted(places: Places) -> None:
    trained = train(_recipe({"start": "vit", "train": "lora"}, optim={"epochs": 6, "batch": 16, "rate": 1e-3}), places)
    assert trained.skipped.keys() == {"bad/0.png"}
    assert trained.items == 48
    provenance = load_tower(trained.package).provenance
    assert provenance["skipped_items"] == 1
    assert provenance["data"] == [{"source": "toy", "licence": "CC0", "items": 48}]


def test_a_set_without_one_readable_file_is_an_error(places: Places) -> None:
    (places.media / "manifest.csv").write_text("path,captions,split\nnot.png,a photo of red,train\n")
    (places.media / "not.png").write_bytes(b"no picture")
    with pytest.raises(RecipeError, match=r"none of the 1 items could be read.*not\.png"):
        train(_recipe({"start": "vit", "train": "lora"}, optim={"epochs": 1, "batch": 2, "rate": 1e-3}), places)


def test_a_head_on_cached_features_learns_and_leaves_the_trunk_alone(places: Places) -> None:
    recipe = _recipe(
        {"start": "conv", "train": ["head"]},
        features={"views": 2},
        augment={"flip": True},
        data={"manifest": "manifest.csv", "templates": ["a photo of {}"], "held_out": 0.2},
        loss={"positives": "same_label", "calibrate": True},
        optim={"epochs": 60, "batch": 16, "rate": 1e-2},
    )
    cached = Places(places.media, places.towers, places.out, places.out.parent / "cache")
    trained = train(recipe, cached)
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    assert trained.held_out.n == 8
    assert 1.0 <= trained.logit_scale <= 100.0
    package = load_tower(trained.package)
    assert package.logit_scale == trained.logit_scale
    assert package.min_similarity is not None
    assert _val_accuracy(trained, places) >= 0.75
    before, after = load_file(places.towers / "conv" / "weights.safetensors"), load_file(trained.package / "weights.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} <= {name for name in before if name.startswith("head.")}

    (kept,) = (places.out.parent / "cache").iterdir()
    written = kept.stat().st_mtime_ns
    unsaid = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"unknown": False})})
    again = train(unsaid, cached)  # from the cache: the same weights, and the cache is not written again
    assert (again.logit_scale, load_tower(again.package).min_similarity) == (trained.logit_scale, None)
    assert kept.stat().st_mtime_ns == written
    assert again.skipped == trained.skipped == {"bad/0.png": trained.skipped["bad/0.png"]}
    repeated = load_file(again.package / "weights.safetensors")
    assert all(torch.equal(after[name], repeated[name]) for name in after)


def test_cached_features_and_the_whole_tower_give_one_vector() -> None:
    tower: HeadedTower = ConvNetTower(CONV).eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        whole = tower(pixels)  # type: ignore[operator]
        halves = torch.nn.functional.normalize(tower.head(tower.features(pixels)), dim=1)
    assert torch.equal(whole, halves)


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    tower = ConvNetTower(CONV)
    choose_trained(tower, _recipe({"start": "conv", "train": ["head"]}).tower)
    set_training(tower)
    before = {name: tensor.clone() for name, tensor in tower.trunk.state_dict().items()}
    tower(torch.randn(4, 3, 16, 16))
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.trunk.state_dict().items())
    choose_trained(tower, _recipe({"start": "conv", "train": ["trunk", "head"]}).tower)
    set_training(tower)
    tower(torch.randn(4, 3, 16, 16))
    assert not torch.equal(before["stem.norm.running_mean"], tower.trunk.stem.norm.running_mean)


def test_parts_of_another_shape_can_be_taken(places: Places) -> None:
    wide = CONV.model_copy(update={"hidden": 0, "size": (16, 32)})
    parts = {"start": "conv", "config": wide, "train": ["head"]}
    tower = start_tower(_recipe({**parts, "start_parts": ["trunk"]}).tower, places.towers)
    source = load_tower(places.towers / "conv").module()
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in tower.state_dict().items() if name.startswith("trunk."))
    with pytest.raises(RecipeError, match=r"head\.hidden\.weight .*has no place"):
        start_tower(_recipe(parts).tower, places.towers)
    with pytest.raises(RecipeError, match="no weight in legs"):
        start_tower(_recipe({**parts, "start_parts": ["legs"]}).tower, places.towers)


def test_a_video_tower_that_starts_from_a_picture_tower_sees_time_as_space(places: Places) -> None:
    shape: dict[str, Any] = {"width": 8, "layers": 2, "heads": 2, "mlp_width": 16, "size": (16, 16), "patch": 8, "dimension": DIMENSION}
    picture = build_tower(VitConfig(**shape))
    save_tower(places.towers / "picture", picture, VitConfig(**shape), ImageSpec(size=16))
    video = VitConfig(**shape, frames=4, temporal_attention=True)
    tower = start_tower(_recipe({"start": "picture", "config": video, "train": "full"}).tower, places.towers)
    blocks = [block for block in tower.modules() if isinstance(block, VideoBlock)]
    assert len(blocks) == 2
    source = picture.state_dict()
    for index, block in enumerate(blocks):
        assert torch.equal(block.attention.q.weight, source[f"layers.{index}.attention.q.weight"])
        assert torch.equal(block.temporal_attention.q.weight, block.attention.q.weight)


def test_lora_is_for_vision_transformers(places: Places) -> None:
    with pytest.raises(RecipeError, match="vision transformers"):
        train(_recipe({"start": "conv", "train": "lora"}), places)


def test_held_out_items_are_a_share_of_each_label(places: Places) -> None:
    items = [item for item in read_manifest(places.media / "manifest.csv", split="train") if item.id != "bad/0.png"]
    training, aside = split_off(items, 0.25, seed=0)
    assert len(training) + len(aside) == len(items)
    assert not {item.id for item in training} & {item.id for item in aside}
    assert sorted(item.label for item in aside) == sorted(3 * ["blue", "green", "red", "white"])
    assert split_off(items, 0.0, seed=0) == (items, [])
