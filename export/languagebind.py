"""A released LanguageBind package → its two towers, loaded strictly, LoRA merged in float32."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from export.checkpoint import locate, read_tensors
from export.errors import CheckpointError
from export.languagebind_config import PackageConfig, read_config
from training.lora import lora_targets, merged_weight
from training.towers.build import TowerConfig, build_tower
from training.towers.package import tower_with_weights
from training.towers.tower import Tower
from training.towers.vit import VitTower

_IN_LAYER = (
    (r"\.temporal_attention\.(\w+)\.", r".temporal_attn.\1_proj."),
    (r"\.attention\.(\w+)\.", r".self_attn.\1_proj."),
    (r"\.temporal_norm\.", ".temporal_layer_norm1."),
    (r"\.norm([12])\.", r".layer_norm\1."),
)
_VISION_NAMES = (
    (r"^layers\.", "vision_model.encoder.layers."),
    (r"^(class_embedding|patch_embedding\.weight)$", r"vision_model.embeddings.\1"),
    (r"^position_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^pre_norm\.", "vision_model.pre_layrnorm."),  # spelled so in every checkpoint
    (r"^post_norm\.", "vision_model.post_layernorm."),
    (r"^projection\.", "visual_projection."),
    *_IN_LAYER,
)
_TEXT_NAMES = (
    (r"^layers\.", "text_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^position_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^final_norm\.", "text_model.final_layer_norm."),
    (r"^projection\.", "text_projection."),
    *_IN_LAYER,
)
_LOGIT_SCALE = "logit_scale"


@dataclass(frozen=True, slots=True)
class Package:
    """A checkpoint whose every tensor was found where its config says. Tensors stay on disk until a tower is asked for."""

    name: str
    directory: Path
    config: PackageConfig
    logit_scale: float
    """The multiplier itself: exp of the stored value."""
    _vision: Mapping[str, Tensor]
    _text: Mapping[str, Tensor]

    def vision(self) -> Tower:
        return tower_with_weights(self.config.vision, self._vision, f"vision tower of {self.name}")

    def text(self) -> Tower:
        return tower_with_weights(self.config.text, self._text, f"text tower of {self.name}")

    def text_weights(self) -> Mapping[str, Tensor]:
        """As stored, by this project's names."""
        return self._text


def open_package(checkpoint: str) -> Package:
    """Read ``checkpoint`` (a directory in the hub's layout, or a hub id).

    Raises `CheckpointError` that lists every unknown, missing and misshapen key by its stored name.
    """
    directory = locate(checkpoint)
    config = read_config(directory)
    stored = _plain_names(read_tensors(directory), str(directory))
    problems: list[str] = []
    scale = _take(stored, _LOGIT_SCALE, (), problems)
    _flatten_patches(stored, config, problems)
    _merge_adapters(stored, config, problems)
    vision = _take_tower(stored, config.vision, _VISION_NAMES, problems)
    text = _take_tower(stored, config.text, _TEXT_NAMES, problems)
    problems += [f"unknown {name}" for name in stored]
    if problems:
        hint = _lora_hint(problems, config)
        raise CheckpointError(f"{directory} does not fit its config.json{hint}: {'; '.join(problems)}")
    assert scale is not None, "a missing logit scale is in `problems`. This is a bug."
    return Package(directory.name, directory, config, math.exp(scale.item()), vision, text)


def _plain_names(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Without the wrappings that different trainers leave in names, and without the buffers that only count 0..n-1."""
    plain: dict[str, Tensor] = {}
    for stored, tensor in tensors.items():
        name = stored.removeprefix("module.")  # distributed training
        name = name.replace("vision_model.encoder.base_model.model.", "vision_model.encoder.")  # peft's wrapping
        name = name.replace(".base_layer.", ".")  # peft 0.7 and later
        if name.endswith(".embeddings.position_ids"):
            continue
        if name in plain:
            raise CheckpointError(f"{origin} holds {name} under two spellings")
        plain[name] = tensor
    return plain


def _flatten_patches(stored: dict[str, Tensor], config: PackageConfig, problems: list[str]) -> None:
    """v1.5: a 3-D patch kernel of one time slice computes the same as the 2-D kernel that it holds."""
    name = "vision_model.embeddings.patch_embedding.weight"
    kernel = stored.get(name)
    if not config.patch_is_3d or kernel is None:
        return
    if kernel.ndim == 5 and kernel.shape[2] == 1:
        stored[name] = kernel[:, :, 0]  # (width, 3, 1, patch, patch) -> (width, 3, patch, patch)
    else:
        problems.append(f"{name} has shape {tuple(kernel.shape)}, a v1.5 package has (width, 3, 1, patch, patch)")


def _merge_adapters(stored: dict[str, Tensor], config: PackageConfig, problems: list[str]) -> None:
    if config.lora is None:
        return
    rank, width = config.lora.rank, config.vision.width
    with torch.device("meta"):
        tower = build_tower(config.vision)
    assert isinstance(tower, VitTower)
    for target in lora_targets(tower):
        name = _stored_name(f"{target}.weight", _VISION_NAMES)
        stem = name.removesuffix(".weight")
        a = _take(stored, f"{stem}.lora_A.default.weight", (rank, width), problems)
        b = _take(stored, f"{stem}.lora_B.default.weight", (width, rank), problems)
        weight = stored.get(name)
        if a is not None and b is not None and weight is not None and weight.shape == (width, width):
            stored[name] = merged_weight(weight, a, b, config.lora.scale)


def _take_tower(
    stored: dict[str, Tensor], config: TowerConfig, names: tuple[tuple[str, str], ...], problems: list[str]
) -> dict[str, Tensor]:
    with torch.device("meta"):
        wanted = build_tower(config).state_dict()
    taken = {name: _take(stored, _stored_name(name, names), tuple(like.shape), problems) for name, like in wanted.items()}
    return {name: tensor for name, tensor in taken.items() if tensor is not None}


def _take(stored: dict[str, Tensor], name: str, shape: tuple[int, ...], problems: list[str]) -> Tensor | None:
    tensor = stored.pop(name, None)
    if tensor is None:
        problems.append(f"missing {name}")
    elif tuple(tensor.shape) != shape:
        problems.append(f"{name} has shape {tuple(tensor.shape)}, the config means {shape}")
    elif not tensor.is_floating_point():
        problems.append(f"{name} has dtype {tensor.dtype}, weights are floats")
    else:
        return tensor
    return None


def _stored_name(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def _lora_hint(problems: list[str], config: PackageConfig) -> str:
    if not any("lora_" in problem for problem in problems):
        return ""
    if config.lora is None:
        return " (lora_r is 0: no adapters expected)"
    return f" (lora_r is {config.lora.rank}, which is 2 when absent: adapters expected; a package without them says 0)"
