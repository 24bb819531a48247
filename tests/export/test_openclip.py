"""OpenCLIP's layout, written by a model of its own: torch's attention with joined projections, `proj` as a factor from the right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from bindery.bundle import open_bundle
from bindery.runtime.open import open_encoder
from bindery.spec import ImageSpec
from export import openclip
from export.cli import app
from training.towers.package import load_tower

VISION = {"image_size": 28, "layers": 2, "width": 64, "head_width": 16, "patch_size": 14}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
CONFIG: dict[str, Any] = {
    "model_cfg": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "resize_mode": "shortest"},
}


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))


class _Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, activation: nn.Module) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads, activation) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class _Visual(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 14, 14, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(64))
        self.positional_embedding = nn.Parameter(torch.randn(5, 64))
        self.ln_pre, self.ln_post = nn.LayerNorm(64), nn.LayerNorm(64)
        self.transformer = _Transformer(64, 4, 2, activation)
        self.proj = nn.Parameter(torch.randn(64, 24) / 8)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.conv1(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class _Clip(nn.Module):
    def __init__(self, quick: bool) -> None:
        super().__init__()
        activation = _QuickGelu() if quick else nn.GELU()
        self.visual = _Visual(activation)
        self.transformer = _Transformer(32, 2, 2, activation)
        self.token_embedding = nn.Embedding(49408, 32)
        self.positional_embedding = nn.Parameter(torch.randn(77, 32))
        self.ln_final = nn.LayerNorm(32)
        self.text_projection = nn.Parameter(torch.randn(32, 24) / 5)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    def text(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)
        x = self.ln_final(self.transformer(self.token_embedding(ids) + self.positional_embedding[:length], mask))
        return x[torch.arange(len(ids)), ids.argmax(dim=-1)] @ self.text_projection


def clip(quick: bool = False) -> _Clip:
    torch.manual_seed(0)
    model = _Clip(quick).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name or name.endswith("bias"):  # else a swapped norm or bias would not be seen
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def write(directory: Path, tokenizer: Path, held: dict[str, Tensor], config: dict[str, Any] = CONFIG) -> Path:
    shutil.copytree(tokenizer, directory)
    (directory / "open_clip_config.json").write_text(json.dumps(config))
    save_file(held, directory / "open_clip_model.safetensors")
    return directory


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["openclip", "--max-batch", "3", *(str(argument) for argument in arguments)])


def config(quick: bool) -> dict[str, Any]:
    return {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "quick_gelu": quick}}


def questions() -> tuple[Tensor, Tensor]:
    ids = torch.randint(1, 49000, (3, 9))
    ids[:, -1] = 49407
    return torch.randn(3, 3, 28, 28), ids


@pytest.mark.parametrize("quick", [False, True])
def test_the_towers_give_the_models_vectors(tmp_path: Path, tokenizer: Path, quick: bool) -> None:
    model, (pictures, ids) = clip(quick), questions()
    (text, image), origin = openclip.openclip_sources(str(write(tmp_path / "clip", tokenizer, tensors(model), config(quick))))
    with torch.no_grad():
        torch.testing.assert_close(image.tower()(pictures), nn.functional.normalize(model.visual(pictures)), atol=1e-5, rtol=0)
        torch.testing.assert_close(text.tower()(ids), nn.functional.normalize(model.text(ids)), atol=1e-5, rtol=0)
    assert image.logit_scale == pytest.approx(np.exp(3.0))
    assert image.spec == ImageSpec(size=28, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", antialias=True)
    assert origin["source"] == "OpenCLIP"
    assert str(tmp_path) not in json.dumps(origin)


def test_a_checkpoint_becomes_a_bundle(tmp_path: Path, tokenizer: Path) -> None:
    model, (pictures, ids) = clip(), questions()
    result = run("--checkpoint", write(tmp_path / "clip", tokenizer, tensors(model)), "--out", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    bundle = open_bundle(tmp_path / "bundle")
    with torch.no_grad():
        seen, read = (nn.functional.normalize(vectors).numpy() for vectors in (model.visual(pictures), model.text(ids)))
    np.testing.assert_allclose(open_encoder(bundle, "image", threads=1).encode({"pixel_values": pictures.numpy()}), seen, atol=1e-5)
    np.testing.assert_allclose(open_encoder(bundle, "text", threads=1).encode({"input_ids": ids.numpy()}), read, atol=1e-5)


def test_a_checkpoint_unpacks_into_towers_that_training_starts_from(tmp_path: Path, tokenizer: Path) -> None:
    checkpoint = write(tmp_path / "clip", tokenizer, tensors(clip()))
    result = CliRunner().invoke(app, ["unpack", "--openclip", str(checkpoint), "--out", str(tmp_path / "towers")])
    assert result.exit_code == 0, result.output
    for source in openclip.openclip_sources(str(checkpoint))[0]:
        found, expected = load_tower(tmp_path / "towers" / source.modality).module().state_dict(), source.tower().state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("layout", ["trainer", "custom text", "old"])
def test_the_ways_in_which_checkpoints_are_kept_give_the_same_weights(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    held = tensors(clip())
    monkeypatch.setattr(openclip, "ARCHITECTURES", {"Tiny": openclip._Model.model_validate(CONFIG["model_cfg"])})
    match layout:
        case "trainer":
            kept: Any = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in held.items()}}
        case "custom text":
            kept = {name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": t for name, t in held.items()}
        case _:
            kept = {**held, "attn_mask": torch.zeros(77, 77), "input_resolution": torch.tensor(28), "vocab_size": torch.tensor(49408)}
    torch.save(kept, tmp_path / "weights.pt")
    plain, _ = openclip.openclip_sources(str(write(tmp_path / "clip", tokenizer, held)))
    found, _ = openclip.openclip_sources(str(tmp_path / "weights.pt"), "Tiny", str(tokenizer))
    for one, other in zip(plain, found, strict=True):
        assert one.logit_scale == other.logit_scale
        weights, others = one.tower().state_dict(), other.tower().state_dict()
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_the_known_architectures_have_the_key_layout_of_large_and_huge() -> None:
    for name, heads, layers, width in [("ViT-L-14", 16, 24, 1024), ("ViT-H-14", 16, 32, 1280)]:
        vision = openclip._vision(openclip._named(name))
        assert (vision.heads, vision.layers, vision.width, vision.mlp_width, vision.patches) == (heads, layers, width, 4 * width, 256)
    assert openclip._text(openclip._named("ViT-L-14-quickgelu")).activation == "quick_gelu"
    assert openclip._text(openclip._named("ViT-H-14")).activation == "gelu"


def _without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda held: held.pop(name)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("visual.ln_post.bias"), "missing what becomes post_norm.bias"),
        (_without("transformer.resblocks.1.attn.in_proj_weight"), r"missing what becomes layers\.1\.attention\.q\.weight"),
        (_without("logit_scale"), "missing logit_scale"),
        (lambda held: held.update({"visual.attn_pool.query": torch.zeros(2)}), r"unknown visual\.attn_pool\.query"),
        (lambda held: held.update({"logit_bias": torch.zeros(1)}), "unknown logit_bias"),
        (lambda held: held.update({"visual.proj": torch.zeros(64, 25)}), r"visual\.proj gives projection\.weight of shape \(25, 64\)"),
    ],
)
def test_a_key_too_few_too_many_or_of_another_shape_is_named(
    tmp_path: Path, tokenizer: Path, spoil: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    held = tensors(clip())
    spoil(held)
    with pytest.raises(openclip.CheckpointError, match=said):
        openclip.openclip_sources(str(write(tmp_path / "clip", tokenizer, held)))


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("vision_cfg", "timm_model_name", "vit_base", "vision_cfg/timm_model_name"),
        ("vision_cfg", "layers", [3, 4, 6, 3], "vision_cfg/layers"),
        ("vision_cfg", "pool_type", "avg", "vision_cfg/pool_type"),
        ("text_cfg", "hf_model_name", "roberta", "text_cfg/hf_model_name"),
    ],
)
def test_what_is_no_plain_clip_is_refused_by_its_field(
    tmp_path: Path, tokenizer: Path, part: str, field: str, value: Any, said: str
) -> None:
    model = {**CONFIG["model_cfg"], part: {**CONFIG["model_cfg"][part], field: value}}
    place = write(tmp_path / "clip", tokenizer, {"logit_scale": torch.zeros(1)}, {"model_cfg": model})
    result = run("--checkpoint", place, "--out", tmp_path / "bundle")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_file_without_its_architecture_is_wrong_usage(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pt")
    result = run("--checkpoint", tmp_path / "weights.pt", "--out", tmp_path / "bundle")
    assert result.exit_code == 2
    assert "ViT-L-14" in result.stderr
    assert run("--checkpoint", tmp_path / "weights.pt", "--architecture", "RN50", "--out", tmp_path / "bundle").exit_code == 2
