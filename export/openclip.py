"""An OpenCLIP checkpoint → the sources of a bundle of text and image: strict, like every import.

A checkpoint is a directory in the hub's layout (`open_clip_config.json` and weights), a hub id, or one file of weights with the name
of its architecture. Towers that are not plain CLIP (ResNets, timm, Hugging Face text towers, SigLIP) are refused by the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from bindery.bundle import file_digest
from bindery.spec import CLIP_MEAN, CLIP_STD, ImageSpec, Triple
from export.checkpoint import locate, read_file
from export.errors import CheckpointError, ExportUsageError
from export.languagebind_bundle import tokenizer_of
from export.languagebind_config import text_spec
from export.source import TowerSource
from training.towers.build import TowerConfig, build_tower
from training.towers.clip_text import ClipTextConfig
from training.towers.package import tower_with_weights
from training.towers.vit import VitConfig

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
LICENCE = "The weights' own: see the page that they came from. Whether it allows your use is yours to decide."
PROMPTS = ("a photo of {}.",)

_IN_LAYER = (
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.out_proj\.", ".attention.out."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_VISION = (
    (r"^transformer\.resblocks\.", "layers."),
    (r"^conv1\.", "patch_embedding."),
    (r"^positional_embedding$", "position_embedding"),
    (r"^ln_pre\.", "pre_norm."),
    (r"^ln_post\.", "post_norm."),
    (r"^proj$", "projection.weight"),
    *_IN_LAYER,
)
_TEXT = (
    (r"^transformer\.resblocks\.", "layers."),
    (r"^positional_embedding$", "position_embedding"),
    (r"^ln_final\.", "final_norm."),
    (r"^text_projection$", "projection.weight"),
    *_IN_LAYER,
)
_NO_WEIGHTS = {"attn_mask", "input_resolution", "context_length", "vocab_size"}
"""Kept by old checkpoints; they follow from the config."""


class _Strict(BaseModel):
    # What a field that we do not know would change, we cannot know either.
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Vision(_Strict):
    image_size: int = 224
    layers: int
    width: int
    head_width: int = 64
    mlp_ratio: float = 4.0
    patch_size: int
    patch_dropout: float = 0.0  # in training only
    pool_type: Literal["tok"] = "tok"
    no_ln_pre: Literal[False] = False
    global_average_pool: Literal[False] = False
    attentional_pool: Literal[False] = False
    ls_init_value: None = None


class _Text(_Strict):
    context_length: int = 77
    vocab_size: int = 49408
    width: int
    heads: int
    layers: int
    mlp_ratio: float = 4.0
    pool_type: Literal["argmax"] = "argmax"
    no_causal_mask: Literal[False] = False
    embed_cls: Literal[False] = False
    ls_init_value: None = None


class _Model(_Strict):
    embed_dim: int
    vision_cfg: _Vision
    text_cfg: _Text
    quick_gelu: bool = False
    custom_text: bool = False  # says where text keys stand, not what they compute
    init_logit_scale: float | None = None


class _Preprocess(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest"] = "shortest"


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    model_cfg: _Model
    preprocess_cfg: _Preprocess = Field(default_factory=_Preprocess)


def _architecture(dimension: int, layers: int, width: int, patch: int, text: tuple[int, int, int], head_width: int = 64) -> _Model:
    text_width, heads, text_layers = text
    return _Model(
        embed_dim=dimension,
        vision_cfg=_Vision(layers=layers, width=width, head_width=head_width, patch_size=patch),
        text_cfg=_Text(width=text_width, heads=heads, layers=text_layers),
    )


ARCHITECTURES: Mapping[str, _Model] = {
    "ViT-B-32": _architecture(512, 12, 768, 32, (512, 8, 12)),
    "ViT-B-16": _architecture(512, 12, 768, 16, (512, 8, 12)),
    "ViT-L-14": _architecture(768, 24, 1024, 14, (768, 12, 12)),
    "ViT-H-14": _architecture(1024, 32, 1280, 14, (1024, 16, 24), head_width=80),
}
"""By OpenCLIP's names; with `-quickgelu` behind it, the activation of OpenAI's weights."""


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    config: _Config
    weights: Path
    named: str


def openclip_sources(
    checkpoint: str, architecture: str | None = None, tokenizer: str | None = None
) -> tuple[list[TowerSource], dict[str, Any]]:
    """Sources of `text` and `image`, and provenance. ``tokenizer``: a directory; default: the checkpoint's own.

    Raises `CheckpointError` that names the file and lists every unknown, missing and misshapen key; `ExportUsageError`.
    """
    found = _found(checkpoint, architecture)
    model = found.config.model_cfg
    vision, text = _vision(model), _text(model)
    stored = _plain_names(read_file(found.weights), str(found.weights))
    problems: list[str] = []
    scale = stored.pop("logit_scale", None)
    if scale is None or scale.numel() != 1:
        problems.append("missing logit_scale")
    pictures = _taken(
        {name.removeprefix("visual."): name for name in stored if name.startswith("visual.")}, stored, vision, _VISION, problems
    )
    words = _taken({name.removeprefix("text."): name for name in stored if not name.startswith("visual.")}, stored, text, _TEXT, problems)
    if problems:
        raise CheckpointError(f"{found.weights} does not fit its architecture: {'; '.join(problems)}")
    assert scale is not None, "a missing logit scale is in `problems`. This is a bug."
    preprocess = found.config.preprocess_cfg
    spec = ImageSpec(
        size=model.vision_cfg.image_size,
        mean=preprocess.mean,
        std=preprocess.std,
        interpolation=preprocess.interpolation,
        antialias=True,  # as PIL resizes, with which these towers were trained
    )
    place = Path(tokenizer) if tokenizer is not None else found.weights.parent
    sources = [
        TowerSource(
            "text",
            text_spec(text, ""),
            lambda: tower_with_weights(text, words, f"text tower of {found.named}"),
            None,
            ("{}",),
            tokenizer_of([place]),
        ),
        TowerSource(
            "image", spec, lambda: tower_with_weights(vision, pictures, f"vision tower of {found.named}"), math.exp(scale.item()), PROMPTS
        ),
    ]
    return sources, {
        "source": "OpenCLIP",
        "checkpoint": {"name": found.named, "weights_sha256": {found.weights.name: file_digest(found.weights)}},
        "model": model.model_dump(mode="json"),
    }


def _found(checkpoint: str, architecture: str | None) -> _Checkpoint:
    path = Path(checkpoint)
    if path.is_file():
        if architecture is None:
            raise ExportUsageError(f"{path} is one file: name its --architecture, one of {', '.join(ARCHITECTURES)} (or with -quickgelu)")
        return _Checkpoint(_Config(model_cfg=_named(architecture)), path, path.name)
    directory = locate(checkpoint)
    for name in WEIGHTS:
        if (directory / name).is_file():
            config = _Config(model_cfg=_named(architecture)) if architecture is not None else _read_config(directory / CONFIG)
            return _Checkpoint(config, directory / name, directory.name)
    raise CheckpointError(f"{directory} has no weights; looked for {', '.join(WEIGHTS)}")


def _named(architecture: str) -> _Model:
    plain = architecture.removesuffix("-quickgelu")
    if plain not in ARCHITECTURES:
        raise ExportUsageError(f"--architecture {architecture}: known are {', '.join(ARCHITECTURES)} (or with -quickgelu)")
    return ARCHITECTURES[plain].model_copy(update={"quick_gelu": plain != architecture})


def _read_config(path: Path) -> _Config:
    try:
        return _Config.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}; without it, name the --architecture") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {'/'.join(str(part) for part in first['loc']) or '/'}: {first['msg']}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _vision(model: _Model) -> VitConfig:
    shape = model.vision_cfg
    return VitConfig(
        width=shape.width,
        layers=shape.layers,
        heads=shape.width // shape.head_width,
        mlp_width=int(shape.width * shape.mlp_ratio),
        activation="quick_gelu" if model.quick_gelu else "gelu",
        patch=shape.patch_size,
        size=(shape.image_size, shape.image_size),
        dimension=model.embed_dim,
    )


def _text(model: _Model) -> ClipTextConfig:
    shape = model.text_cfg
    return ClipTextConfig(
        vocabulary=shape.vocab_size,
        context_length=shape.context_length,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        mlp_width=int(shape.width * shape.mlp_ratio),
        activation="quick_gelu" if model.quick_gelu else "gelu",
        dimension=model.embed_dim,
    )


def _plain_names(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for stored, tensor in tensors.items():
        name = stored.removeprefix("module.")  # distributed training
        if name.removeprefix("text.") in _NO_WEIGHTS:
            continue
        if name in plain:
            raise CheckpointError(f"{origin} holds {name} under two spellings")
        plain[name] = tensor
    return plain


def _taken(
    names: Mapping[str, str], stored: Mapping[str, Tensor], config: TowerConfig, rules: tuple[tuple[str, str], ...], problems: list[str]
) -> dict[str, Tensor]:
    """A tower's tensors under this project's names. ``names``: short name → stored name."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in build_tower(config).state_dict().items()}
    found: dict[str, tuple[str, Tensor]] = {}
    for short, name in names.items():
        for ours, tensor in _translated(short, stored[name], rules):
            found[ours] = (name, tensor)
    problems += [f"missing what becomes {name}" for name in wanted if name not in found]
    for ours, (name, tensor) in found.items():
        if ours not in wanted:
            problems.append(f"unknown {name}")
        elif tuple(tensor.shape) != wanted[ours]:
            problems.append(f"{name} gives {ours} of shape {tuple(tensor.shape)}, the architecture means {wanted[ours]}")
        elif not tensor.is_floating_point():
            problems.append(f"{name} has dtype {tensor.dtype}, weights are floats")
    return {ours: tensor for ours, (_, tensor) in found.items()}


def _translated(short: str, tensor: Tensor, rules: tuple[tuple[str, str], ...]) -> list[tuple[str, Tensor]]:
    name = short
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    joined = re.fullmatch(r"(.*\.)attn\.in_proj_(weight|bias)", name)
    if joined and tensor.shape[0] % 3 == 0:
        return [(f"{joined[1]}attention.{part}.{joined[2]}", piece) for part, piece in zip("qkv", tensor.chunk(3), strict=True)]
    if name == "projection.weight" and tensor.ndim == 2:
        tensor = tensor.T.contiguous()  # stored as a factor from the right, (width, dimension)
    return [(name, tensor)]
