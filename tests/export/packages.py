"""Released packages in the hub's layout, written from the goldens; each test spoils what it wants to see refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden"
LANGUAGEBIND = GOLDEN / "languagebind"
PREPROCESS = GOLDEN / "preprocess"

ITEMS: list[dict[str, Any]] = json.loads((LANGUAGEBIND / "items.json").read_bytes())
TEXTS: list[dict[str, Any]] = json.loads((PREPROCESS / "tokens.json").read_bytes())

Layout = Literal["bin", "safetensors", "sharded"]
TOKEN_TABLE = "text_model.embeddings.token_embedding.weight"


@dataclass
class Parts:
    """A package in memory, before it is written."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def goldens() -> dict[str, np.ndarray]:
    with np.load(LANGUAGEBIND / "goldens.npz") as archive:
        return dict(archive)


def items(kind: str) -> list[dict[str, Any]]:
    return [item for item in ITEMS if item["kind"] == kind]


def parts(package: str) -> Parts:
    config = json.loads((LANGUAGEBIND / f"{package}.json").read_bytes())
    size = "H" if "Huge" in package else "L"
    text = load_file(LANGUAGEBIND / f"text_{size}.safetensors")
    rows, values = text.pop("used_rows"), text.pop("token_embedding_rows")
    table = torch.zeros(config["text_config"]["vocab_size"], values.shape[1], dtype=values.dtype)
    table[rows.long()] = values
    return Parts(config, {**load_file(LANGUAGEBIND / f"{package}.safetensors"), **text, TOKEN_TABLE: table})


def write_package(directory: Path, package: str, spoil: Callable[[Parts], object] | None = None, layout: Layout = "safetensors") -> Path:
    made = parts(package)
    if spoil is not None:
        spoil(made)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(made.config))
    tensors = {name: tensor.contiguous() for name, tensor in made.tensors.items()}
    match layout:
        case "safetensors":
            save_file(tensors, directory / "model.safetensors")
        case "bin":
            torch.save(tensors, directory / "pytorch_model.bin")
        case "sharded":
            names = sorted(tensors)
            shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
            for shard, held in shards.items():
                torch.save({name: tensors[name] for name in held}, directory / shard)
            index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
            (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return directory


def write_tokenizer(directory: Path) -> Path:
    """CLIP's `vocab.json` and `merges.txt`; the vocabulary follows from the merges."""
    directory.mkdir(parents=True, exist_ok=True)
    merges = gzip.decompress((PREPROCESS / "merges.txt.gz").read_bytes()).decode()
    (directory / "merges.txt").write_text(merges, encoding="utf-8")
    letters = _printable_bytes()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += ["".join(line.split(" ")) for line in merges.splitlines() if line and not line.startswith("#version")]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (directory / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}), encoding="utf-8")
    return directory


def _printable_bytes() -> list[str]:
    # GPT-2's alphabet: printable bytes stand for themselves, the others for code points from 256 up.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def formula(shape: tuple[int, ...]) -> Tensor:
    """The input of the synthetic goldens."""
    i = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy((1.5 * np.sin(0.37 * i) + 0.5 * np.cos(0.011 * i)).astype(np.float32).reshape(shape))


def token_ids(count: int | None = None) -> Tensor:
    """(texts, 77), padded with the end token as the reference pads."""
    return torch.tensor([[*text["ids"], *[49407] * (77 - len(text["ids"]))] for text in TEXTS[:count]])


def assert_close(vectors: np.ndarray, golden: np.ndarray, tolerances: dict[str, float]) -> None:
    """Both measures: a cosine alone is a weak test, as random towers give similar vectors for different inputs."""
    cosines = (vectors * golden).sum(-1) / np.linalg.norm(vectors, axis=-1) / np.linalg.norm(golden, axis=-1)
    assert cosines.min() >= tolerances["min_cosine"]
    assert np.abs(vectors - golden).max() <= tolerances["max_abs"]
