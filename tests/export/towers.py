"""Small towers with random weights, and the sources of a bundle made of them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from bindery.spec import DepthSpec, ImageSpec, TextSpec, VideoSpec
from export.source import TowerSource
from training.towers.build import TowerConfig, build_tower
from training.towers.clip_text import ClipTextConfig
from training.towers.package import save_tower
from training.towers.tower import Tower
from training.towers.vit import VitConfig

TEXT = ClipTextConfig(vocabulary=64, width=32, layers=1, heads=2, mlp_width=64, dimension=16)
IMAGE = VitConfig(width=32, layers=1, heads=2, mlp_width=64, patch=8, size=(32, 32), dimension=16)
VIDEO = IMAGE.model_copy(update={"frames": 4, "temporal_attention": True})

IMAGE_SPEC = ImageSpec(size=32)
DEPTH_SPEC = DepthSpec(size=32)
VIDEO_SPEC = VideoSpec(size=32, frames=4)
TEXT_SPEC = TextSpec(tokenizer="tokenizer.json", pad_id=63)


def tower(config: TowerConfig, seed: int = 0) -> Tower:
    torch.manual_seed(seed)
    return build_tower(config).eval()


def tokenizer_json() -> str:
    """Words to ids; `[end]` has the largest id, as the CLIP tower wants it."""
    words = ["[unknown]", "[begin]", *(f"word{n}" for n in range(61)), "[end]"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[unknown]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[begin] $A [end]", special_tokens=[("[begin]", 1), ("[end]", 63)])
    return tokenizer.to_str()


def text_source(seed: int = 0) -> TowerSource:
    return TowerSource("text", TEXT_SPEC, lambda: tower(TEXT, seed), None, ("{}",), tokenizer_json())


def image_source(modality: str = "image", seed: int = 1) -> TowerSource:
    return TowerSource(modality, IMAGE_SPEC, lambda: tower(IMAGE, seed), 20.0, ("a photo of {}.",))


def save_packages(root: Path) -> dict[str, Path]:
    """Tower packages of a text, an image and a depth tower; the last two share all weights but the projection."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer_json())))
    text, image, depth = tower(TEXT), tower(IMAGE, 1), tower(IMAGE, 1)
    with torch.no_grad():
        depth.get_parameter("projection.weight").mul_(torch.linspace(-1, 1, 32))
    return {
        "text": save_tower(root / "text", text, TEXT, TEXT_SPEC, tokenizer=root / "tokenizer.json"),
        "image": save_tower(root / "image", image, IMAGE, IMAGE_SPEC, logit_scale=20.0, prompts=["a photo of {}."], provenance={"seed": 1}),
        "depth": save_tower(root / "depth", depth, IMAGE, DEPTH_SPEC, logit_scale=20.0, prompts=["a depth photo of {}."]),
    }
