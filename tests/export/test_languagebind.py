from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.errors import CheckpointError
from export.languagebind import open_package
from tests.export.packages import TOKEN_TABLE, Parts, assert_close, formula, goldens, items, token_ids, write_package

GOLDENS = goldens()


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def _of(item: dict[str, Any]) -> str:
    return str(item["checkpoint"])


@pytest.mark.parametrize("item", items("synthetic"), ids=_of)
def test_the_vision_tower_gives_the_reference_vectors(tmp_path: Path, item: dict[str, Any]) -> None:
    package = open_package(str(write_package(tmp_path, item["checkpoint"])))
    vectors = package.vision()(formula(tuple(item["shape"]))).numpy()
    assert_close(vectors, GOLDENS[item["key"]], item["tolerances"])


@pytest.mark.parametrize("item", items("text"), ids=_of)
def test_the_text_tower_gives_the_reference_vectors(tmp_path: Path, item: dict[str, Any]) -> None:
    package = open_package(str(write_package(tmp_path, item["checkpoint"])))
    assert_close(package.text()(token_ids()).numpy(), GOLDENS[item["key"]], item["tolerances"])


@pytest.mark.parametrize("item", items("merge"), ids=_of)
def test_a_merged_weight_is_bit_equal_to_pefts_own_merge(tmp_path: Path, item: dict[str, Any]) -> None:
    package = open_package(str(write_package(tmp_path, item["checkpoint"])))
    attention = "temporal_attention" if package.config.kind == "video" else "attention"
    merged = package.vision().state_dict()[f"layers.0.{attention}.k.weight"].numpy()
    np.testing.assert_array_equal(merged, GOLDENS[item["key"]])


@pytest.mark.parametrize("item", items("wrapper"), ids=_of)
def test_vectors_times_logit_scale_are_the_wrappers_outputs(tmp_path: Path, item: dict[str, Any]) -> None:
    package = open_package(str(write_package(tmp_path, item["checkpoint"])))
    shape = next(s["shape"] for s in items("synthetic") if s["checkpoint"] == item["checkpoint"])
    scaled = package.vision()(formula(tuple(shape))).numpy() * package.logit_scale
    np.testing.assert_allclose(scaled, GOLDENS[item["key"]], rtol=item["tolerances"]["rel"], atol=item["tolerances"]["abs"])


def test_logits_are_the_forward_passes(tmp_path: Path) -> None:
    (item,) = items("logits")
    package = open_package(str(write_package(tmp_path, item["checkpoint"])))
    shape = next(s["shape"] for s in items("synthetic") if s["checkpoint"] == item["checkpoint"])
    logits = package.logit_scale * package.vision()(formula(tuple(shape))) @ package.text()(token_ids(3)).T
    np.testing.assert_allclose(logits.numpy(), GOLDENS[item["key"]], rtol=item["tolerances"]["rel"], atol=item["tolerances"]["abs"])


def _renamed(change: Callable[[str], str]) -> Callable[[Parts], None]:
    def spoil(parts: Parts) -> None:
        parts.tensors = {change(name): tensor for name, tensor in parts.tensors.items()}

    return spoil


def _newer_peft(name: str) -> str:
    adapted = ".self_attn." in name and name.startswith("vision_model") and "lora_" not in name
    return name.replace("_proj.", "_proj.base_layer.") if adapted else name


def _position_ids(parts: Parts) -> None:
    parts.tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    parts.tensors["vision_model.embeddings.position_ids"] = torch.arange(257)[None]


def _legacy_dictionaries(parts: Parts) -> None:
    parts.config["vision_config_dict"] = parts.config["vision_config"]
    parts.config["vision_config"] = {"hidden_size": 8}
    parts.config["text_config_dict"] = parts.config["text_config"]
    parts.config["text_config"] = {"hidden_size": 8}


def _rank_left_out(parts: Parts) -> None:
    assert parts.config["vision_config"].pop("lora_r") == 2


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_renamed(_newer_peft), id="peft 0.7 spelling"),
        pytest.param(_renamed(lambda name: f"module.{name}"), id="distributed training prefix"),
        pytest.param(_renamed(lambda name: name.replace("base_model.model.", "")), id="no peft prefix"),
        pytest.param(_position_ids, id="position_ids stored"),
        pytest.param(_legacy_dictionaries, id="legacy config dictionaries"),
        pytest.param(_rank_left_out, id="lora_r absent means 2"),
    ],
)
def test_other_spellings_of_one_package_load_to_the_same_tower(tmp_path: Path, spoil: Callable[[Parts], None]) -> None:
    plain = open_package(str(write_package(tmp_path / "plain", "Depth")))
    other = open_package(str(write_package(tmp_path / "other", "Depth", spoil)))
    for mine, theirs in ((plain.vision(), other.vision()), (plain.text(), other.text())):
        for name, tensor in mine.state_dict().items():
            torch.testing.assert_close(theirs.state_dict()[name], tensor, rtol=0, atol=0)


def test_an_image_size_saved_as_a_list_is_accepted(tmp_path: Path) -> None:
    def saved_after_loading(parts: Parts) -> None:
        parts.config["vision_config"]["image_size"] = [112, 1036]

    assert open_package(str(write_package(tmp_path, "Audio", saved_after_loading))).config.vision.grid == (8, 74)


PATCH = "vision_model.embeddings.patch_embedding.weight"
K = "vision_model.encoder.base_model.model.layers.0.self_attn.k_proj"


def _add(name: str) -> Callable[[Parts], None]:
    return lambda parts: parts.tensors.update({name: torch.zeros(2)})


def _drop(name: str) -> Callable[[Parts], object]:
    return lambda parts: parts.tensors.pop(name)


def _set(name: str, tensor: torch.Tensor) -> Callable[[Parts], None]:
    return lambda parts: parts.tensors.update({name: tensor})


def _without_adapters(parts: Parts) -> None:
    parts.tensors = {name: tensor for name, tensor in parts.tensors.items() if "lora_" not in name}


def _vision(field: str, value: object) -> Callable[[Parts], None]:
    return lambda parts: parts.config["vision_config"].update({field: value})


@pytest.mark.parametrize(
    ("package", "spoil", "said"),
    [
        ("Image", _add("visual_projection.bias"), r"unknown visual_projection\.bias"),
        ("Image", _drop("vision_model.pre_layrnorm.bias"), r"missing vision_model\.pre_layrnorm\.bias"),
        ("Image", _drop("logit_scale"), "missing logit_scale"),
        ("Image", _set("visual_projection.weight", torch.zeros(3, 3)), r"visual_projection\.weight has shape \(3, 3\).*\(16, 32\)"),
        ("Image", _set("text_projection.weight", torch.zeros(16, 6, dtype=torch.int64)), "text_projection.weight has dtype"),
        ("Depth", _drop(f"{K}.lora_A.default.weight"), r"lora_r is 2.*missing .*k_proj\.lora_A"),
        ("Depth", _without_adapters, "lora_r is 2.*missing .*lora_B"),
        ("Depth", _vision("lora_r", 0), r"lora_r is 0.*unknown .*lora_A"),
        ("Depth", _vision("lora_r", 4), r"lora_A\.default\.weight has shape \(2, 32\)"),
        ("Depth", _add(f"{K}.base_layer.weight"), "under two spellings"),
        ("Audio_FT", _vision("num_mel_bins", 126), r"position_embedding\.weight has shape \(593, 32\).*\(667, 32\)"),
        ("Video_V1.5_FT", _set(PATCH, torch.zeros(32, 3, 2, 14, 14)), r"patch_embedding.*\(32, 3, 2, 14, 14\)"),
        ("Video_V1.5_FT", _vision("tube_size", 2), "tube_size is 2"),
        ("Video", _vision("add_time_attn", False), "add_time_attn is False"),
        ("Image", _vision("add_time_attn", True), "add_time_attn is True"),
        ("Image", _vision("hidden_act", "relu"), "hidden_act"),
        ("Image", lambda parts: parts.config.update(model_type="clip"), "model_type is 'clip'"),
    ],
)
def test_a_package_that_does_not_fit_its_config_is_refused_with_the_names(
    tmp_path: Path, package: str, spoil: Callable[[Parts], object], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        open_package(str(write_package(tmp_path, package, spoil)))


def test_every_fault_is_listed_at_once(tmp_path: Path) -> None:
    def spoil(parts: Parts) -> None:
        parts.tensors.pop("logit_scale")
        parts.tensors["extra"] = torch.zeros(1)
        parts.tensors[TOKEN_TABLE] = torch.zeros(1, 1)

    with pytest.raises(CheckpointError) as caught:
        open_package(str(write_package(tmp_path, "Image", spoil)))
    assert all(word in str(caught.value) for word in ("missing logit_scale", "unknown extra", TOKEN_TABLE, str(tmp_path)))
