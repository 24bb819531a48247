from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bindery.spec import ImageSpec, TextSpec
from training.lora import LoraConfig, inject_lora, lora_targets
from training.towers.build import build_tower
from training.towers.clip_text import ClipTextConfig
from training.towers.package import TowerPackageError, load_tower, save_tower
from training.towers.vit import VitConfig, VitTower

CONFIG = VitConfig(width=16, layers=1, heads=2, mlp_width=32, patch=4, size=(8, 8), dimension=6)
TEXT = ClipTextConfig(vocabulary=50, width=16, layers=1, heads=2, mlp_width=32, dimension=6)
SPEC = ImageSpec(size=8)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return save_tower(
        tmp_path / "image", build_tower(CONFIG), CONFIG, SPEC, logit_scale=14.3, prompts=["a {}."], provenance={"by": "a test"}
    )


def test_a_package_gives_back_what_was_saved(tmp_path: Path) -> None:
    tower = build_tower(CONFIG).eval()
    loaded = load_tower(save_tower(tmp_path, tower, CONFIG, SPEC, logit_scale=14.3, prompts=["a {}."], provenance={"by": "a test"}))
    assert (loaded.config, loaded.spec, loaded.logit_scale, loaded.prompts) == (CONFIG, SPEC, 14.3, ("a {}.",))
    assert loaded.provenance == {"by": "a test"}
    assert loaded.tokenizer is None
    module = loaded.module()
    assert not module.training
    picture = torch.randn(2, 3, 8, 8)
    assert torch.equal(module(picture), tower(picture))


def test_a_text_tower_travels_with_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text("{}")
    spec = TextSpec(tokenizer="tokenizer.json")
    loaded = load_tower(save_tower(tmp_path / "text", build_tower(TEXT), TEXT, spec, tokenizer=tmp_path / "made.json"))
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.read_text() == "{}"
    loaded.tokenizer.unlink()
    with pytest.raises(TowerPackageError, match=r"tokenizer\.json is missing"):
        load_tower(tmp_path / "text")


def test_a_text_tower_without_tokenizer_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TowerPackageError, match=r"tokenizer\.json"):
        save_tower(tmp_path / "text", build_tower(TEXT), TEXT, TextSpec(tokenizer="tokenizer.json"))


def test_half_precision_weights_are_widened(package: Path) -> None:
    path = package / "weights.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    assert {p.dtype for p in load_tower(package).module().parameters()} == {torch.float32}


def test_unmerged_adapters_are_not_saved(tmp_path: Path) -> None:
    tower = VitTower(CONFIG)
    inject_lora(tower, lora_targets(tower), LoraConfig())
    with pytest.raises(TowerPackageError, match=r"unknown .*lora_a"):
        save_tower(tmp_path / "image", tower, CONFIG, SPEC)
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t.pop("class_embedding"), "missing class_embedding"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown extra"),
        (lambda t: t.update(class_embedding=torch.zeros(3)), r"class_embedding has shape \(3,\), this tower has \(16,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_file_and_the_names(package: Path, spoil: object, said: str) -> None:
    path = package / "weights.safetensors"
    tensors = load_file(path)
    spoil(tensors)  # type: ignore[operator]
    save_file(tensors, path)
    with pytest.raises(TowerPackageError, match=rf"weights\.safetensors does not fit.*{said}"):
        load_tower(package).module()


@pytest.mark.parametrize("content", ["", "[]", '{"config": {"architecture": "perceiver"}}', '{"surprise": 1}'])
def test_a_document_that_is_none_is_named(package: Path, content: str) -> None:
    (package / "tower.json").write_text(content)
    with pytest.raises(TowerPackageError, match=r"tower\.json is no tower document"):
        load_tower(package)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(TowerPackageError, match="nowhere"):
        load_tower(tmp_path / "nowhere")
