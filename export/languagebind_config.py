"""A released package's config.json → the shapes of its towers and the spec of its modality.

Defaults are those of the reference's own config classes: a field that a package leaves out means what it means there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bindery.spec import AudioSpec, DepthSpec, ImageSpec, Spec, TextSpec, ThermalSpec, VideoSpec
from export.errors import CheckpointError
from training.lora import LoraConfig
from training.towers.attention import Activation
from training.towers.clip_text import ClipTextConfig
from training.towers.vit import VitConfig

KINDS = {
    "LanguageBindImage": "image",
    "LanguageBindVideo": "video",
    "LanguageBindAudio": "audio",
    "LanguageBindDepth": "depth",
    "LanguageBindThermal": "thermal",
}

PROMPTS = {
    "image": ("a photo of {}.",),
    "video": ("a video of {}.",),
    "audio": ("a sound of {}.",),
    "depth": ("a depth photo of {}.",),
    "thermal": ("a thermal infrared photo of {}.",),
}


class _Hub(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Text(_Hub):
    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5


def _pair(size: object) -> object:
    # A config saved after the reference loaded its model holds [112, 1036] for audio, else one number.
    return (size, size) if isinstance(size, int) else size


class _Vision(_Hub):
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: Annotated[tuple[int, int], BeforeValidator(_pair)] = (224, 224)
    patch_size: int = 32
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5
    add_time_attn: bool = False
    num_frames: int = 1
    clip_type: str | None = None
    tube_size: int | None = None
    force_patch_dropout: float = 0.0
    lora_r: int = 2
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    num_mel_bins: int = 0
    target_length: int = 0
    audio_sample_rate: int | None = 16_000
    audio_mean: float | None = 0.5
    audio_std: float | None = 0.5
    max_depth: float | None = 10


class _Package(_Hub):
    model_type: str
    projection_dim: int = 512
    text_config: _Text = Field(default_factory=_Text)
    vision_config: _Vision = Field(default_factory=_Vision)

    @model_validator(mode="before")
    @classmethod
    def _legacy_dictionaries_stand(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for part in ("text_config", "vision_config"):
                if values.get(f"{part}_dict") is not None:
                    values = {**values, part: values[f"{part}_dict"]}
        return values


class PackageConfig(BaseModel):
    """What a released package says about itself, in this project's terms. ``lora`` is None for packages without adapters."""

    model_config = ConfigDict(frozen=True)

    model_type: str
    kind: Literal["image", "video", "audio", "depth", "thermal"]
    vision: VitConfig
    text: ClipTextConfig
    spec: Spec
    lora: LoraConfig | None
    patch_is_3d: bool


def read_config(directory: Path) -> PackageConfig:
    """Raises `CheckpointError` naming the file and the field."""
    path = directory / "config.json"
    try:
        package = _Package.model_validate(json.loads(path.read_bytes()))
        return _translate(package)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {'/'.join(str(part) for part in first['loc']) or '/'}: {first['msg']}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _translate(package: _Package) -> PackageConfig:
    kind = KINDS.get(package.model_type)
    if kind is None:
        raise ValueError(f"model_type is {package.model_type!r}; known are {', '.join(KINDS)}")
    vision = package.vision_config
    _refuse_what_the_reference_cannot_run(kind, vision)
    return PackageConfig(
        model_type=package.model_type,
        kind=kind,
        vision=_vision(vision, kind, package.projection_dim),
        text=_text(package.text_config, package.projection_dim),
        spec=_spec(kind, vision),
        lora=LoraConfig(rank=vision.lora_r, alpha=vision.lora_alpha, dropout=vision.lora_dropout) if vision.lora_r else None,
        patch_is_3d=_is_v15(vision),
    )


def _refuse_what_the_reference_cannot_run(kind: str, vision: _Vision) -> None:
    if (kind == "video") != vision.add_time_attn:
        raise ValueError(
            f"vision_config/add_time_attn is {vision.add_time_attn} in a package for {kind}; video packages, and only they, have it"
        )
    if (vision.tube_size or 1) > 1:
        raise ValueError(f"vision_config/tube_size is {vision.tube_size}; only 1 is supported, as in every released package")
    if _is_v15(vision) and kind != "video":
        raise ValueError(f"vision_config/clip_type is {vision.clip_type!r} in a package for {kind}; it belongs to video")
    if (kind == "audio") != bool(vision.num_mel_bins and vision.target_length):
        raise ValueError(
            f"vision_config/num_mel_bins and target_length are {vision.num_mel_bins} and {vision.target_length} in a package for {kind}"
        )


def _is_v15(vision: _Vision) -> bool:
    return vision.clip_type == "vl_new"


def _vision(vision: _Vision, kind: str, dimension: int) -> VitConfig:
    return VitConfig(
        width=vision.hidden_size,
        layers=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        activation=vision.hidden_act,
        layer_norm_eps=vision.layer_norm_eps,
        patch=vision.patch_size,
        size=(vision.num_mel_bins, vision.target_length) if kind == "audio" else vision.image_size,
        channels=vision.num_channels,
        frames=vision.num_frames if kind == "video" else None,
        temporal_attention=kind == "video",
        class_token_per_frame=_is_v15(vision),
        dimension=dimension,
        patch_dropout=vision.force_patch_dropout,
    )


def _text(text: _Text, dimension: int) -> ClipTextConfig:
    return ClipTextConfig(
        vocabulary=text.vocab_size,
        context_length=text.max_position_embeddings,
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        mlp_width=text.intermediate_size,
        activation=text.hidden_act,
        layer_norm_eps=text.layer_norm_eps,
        dimension=dimension,
    )


def _spec(kind: str, vision: _Vision) -> Spec:
    """The reference wherever it gives a result; where it fails, the specs' own defaults."""
    size, width = vision.image_size
    if kind != "audio" and size != width:
        raise ValueError(f"vision_config/image_size is {vision.image_size}; pictures are square")
    match kind:
        case "image":
            return ImageSpec(size=size, interpolation="bicubic", antialias=False, exif="ignore")
        case "thermal":
            return ThermalSpec(size=size, interpolation="bicubic", antialias=False, exif="ignore")
        case "depth":
            max_depth_m = 10.0 if vision.max_depth is None else vision.max_depth
            return DepthSpec(size=size, interpolation="bicubic", antialias=False, max_depth_m=max_depth_m, depth_8bit="millimetres")
        case "video":
            return VideoSpec(size=size, interpolation="bilinear", antialias=False, frames=vision.num_frames, rotation="ignore")
        case _:
            mean, std = (0.5 if value is None else value for value in (vision.audio_mean, vision.audio_std))
            return AudioSpec(
                sample_rate=vision.audio_sample_rate or 16_000,
                mel_bins=vision.num_mel_bins,
                frames=vision.target_length,
                mean=mean,
                divisor=2 * std,  # the reference divides by twice its "std"
                audio_channels="first",
                long_audio="thirds_first",
                short_audio="repeat",
                resampler="sinc_hann",
            )


def text_spec(config: ClipTextConfig, tokenizer: str) -> TextSpec:
    """``tokenizer``: its path inside the bundle."""
    return TextSpec(tokenizer=tokenizer, context_length=config.context_length, cleanup="ftfy_lower", pad_id=49407, attention_mask=False)
