"""A real, loadable bundle of a few kilobytes: all six modalities, eight dimensions, random but fixed weights.

Every graph is pooling, one projection and the L2 norm; its text tower takes any Unicode text, byte by byte. It means
nothing, but different inputs have different vectors, and everything about it (specs, checksums, tokenizer) is real.

    python -m tests.toybundle DIRECTORY
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from bindery.bundle import file_digest

DIMENSION = 8
NAME = "toy"
SIZE = 32  # px
FRAMES = 4
MEL_BINS, MEL_FRAMES = 32, 100
VOCABULARY = 3 + 256  # <pad> <s> </s> and every byte
MAX_BATCH = 16

_PIXELS: list[int | str] = ["batch", 3, SIZE, SIZE]
_SPECS: dict[str, tuple[dict[str, Any], list[int | str]]] = {
    "image": ({"size": SIZE, "exif": "apply", "alpha": "white", "antialias": True}, _PIXELS),
    "video": ({"size": SIZE, "frames": FRAMES}, ["batch", 3, FRAMES, SIZE, SIZE]),
    "audio": ({"mel_bins": MEL_BINS, "frames": MEL_FRAMES}, ["batch", 3, MEL_BINS, MEL_FRAMES]),
    "depth": ({"size": SIZE}, _PIXELS),
    "thermal": ({"size": SIZE}, _PIXELS),
}
NAN_TEXT, RAISING_TEXT, ENDLESS_TEXT = "~", "í", "^"
"""With ``poisonous``: texts in which these stand become NaN, make the runtime raise, or keep it busy for ever; all others are as ever."""

LEAST_OF_SOUNDS = 0.05
"""Only sounds say below which cosine no label fits."""
_PROMPTS = {"image": ["a photo of a {}", "{}"], "audio": ["the sound of {}"]}


def build_toy_bundle(directory: Path, *, poisonous: bool = False) -> Path:
    """Write the bundle into ``directory`` (made if missing) and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    modalities = {"text": _text(directory, poisonous)} | {kind: _media(directory, kind) for kind in _SPECS}
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != "manifest.json")
    manifest = {
        "format": 1,
        "name": NAME,
        "version": "1",
        "space": "sha256:" + file_digest(directory / "text/model.onnx"),
        "dimension": DIMENSION,
        "licence": "Apache-2.0",
        "modalities": modalities,
        "files": {str(p.relative_to(directory)): {"sha256": file_digest(p), "bytes": p.stat().st_size} for p in files},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return directory


def _media(root: Path, kind: str) -> dict[str, Any]:
    spec, shape = _SPECS[kind]
    kernel = [int(side) // 4 for side in shape[-2:]]  # a 4 x 4 grid of means for each of three channels
    nodes = []
    pooled = "pixel_values"
    if kind == "video":
        nodes.append(helper.make_node("ReduceMean", ["pixel_values", "frame_axis"], ["mean_frame"], keepdims=0))
        pooled = "mean_frame"  # (batch, 3, size, size)
    nodes += [
        helper.make_node("AveragePool", [pooled], ["grid"], kernel_shape=kernel, strides=kernel),
        helper.make_node("Flatten", ["grid"], ["features"]),  # (batch, 48)
        *_projection(),
    ]
    weights = {
        "weight": _random(kind, 48, DIMENSION),
        "bias": _random(kind + "-bias", DIMENSION),
        "frame_axis": np.array([2], dtype=np.int64),
    }
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)]
    _save(root / kind / "model.onnx", nodes, inputs, weights)
    return {
        "spec": {"kind": kind, **spec},
        "artefacts": [_artefact(f"{kind}/model.onnx", [{"name": "pixel_values", "dtype": "float32", "shape": shape}])],
        "logit_scale": 20.0,
        **({"min_similarity": LEAST_OF_SOUNDS} if kind == "audio" else {}),
        "prompts": _PROMPTS.get(kind, ["{}"]),
    }


def _text(root: Path, poisonous: bool) -> dict[str, Any]:
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["tokens"]),  # (batch, tokens, d)
        helper.make_node("Cast", ["attention_mask"], ["mask_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask_float", "last_axis"], ["mask"]),  # (batch, tokens, 1)
        helper.make_node("Mul", ["tokens", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "token_axis"], ["features"], keepdims=0),  # (batch, d)
        *(_endless_loop() if poisonous else ()),
        *_projection("ended" if poisonous else "features"),
    ]
    weights = {
        "endless_id": np.array(text_ids(ENDLESS_TEXT), dtype=np.int64),
        "for_ever": np.array(2**62, dtype=np.int64),
        "embedding": _random("text", VOCABULARY, DIMENSION),
        "weight": _random("text-weight", DIMENSION, DIMENSION),
        "bias": _random("text-bias", DIMENSION),
        "last_axis": np.array([2], dtype=np.int64),
        "token_axis": np.array([1], dtype=np.int64),
    }
    if poisonous:
        weights["embedding"][text_ids(NAN_TEXT)] = np.nan
        assert VOCABULARY - 1 in text_ids(RAISING_TEXT)
        weights["embedding"] = weights["embedding"][:-1]  # no row for it: `Gather` raises
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    _save(root / "text/model.onnx", nodes, inputs, weights)
    _tokenizer().save(str(root / "text/tokenizer.json"))
    return {
        "spec": {
            "kind": "text",
            "tokenizer": "text/tokenizer.json",
            "context_length": 77,
            "cleanup": "none",
            "pad_id": 0,
            "attention_mask": True,
        },
        "artefacts": [_artefact("text/model.onnx", [{"name": name, "dtype": "int64", "shape": ["batch", "tokens"]} for name in names])],
    }


def text_ids(text: str) -> list[int]:
    """Its tokens, without start and end."""
    return list(_tokenizer().encode(text, add_special_tokens=False).ids)


def _tokenizer() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def _endless_loop() -> list[onnx.NodeProto]:
    """Goes round as often as ``for_ever`` says when any text of the batch has the token, and else not once."""
    value, flag = (helper.make_tensor_value_info(name, kind, []) for name, kind in (("turn", TensorProto.INT64), ("on", TensorProto.BOOL)))
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), helper.make_node("Neg", ["before"], ["after"])],
        "turn",
        [value, flag, helper.make_tensor_value_info("before", TensorProto.FLOAT, ["batch", DIMENSION])],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["batch", DIMENSION]),
        ],
    )
    return [
        helper.make_node("Equal", ["input_ids", "endless_id"], ["is_endless"]),
        helper.make_node("Cast", ["is_endless"], ["endless"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["endless"], ["any_endless"], keepdims=0),
        helper.make_node("Mul", ["any_endless", "for_ever"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "features"], ["ended"], body=body),
    ]


def _projection(features: str = "features") -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", [features, "weight"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["moved"]),  # a black picture must have a direction too
        helper.make_node("LpNormalization", ["moved"], ["embedding_out"], axis=-1, p=2),
    ]


def _save(path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], weights: dict[str, NDArray[Any]]) -> None:
    used = {name for node in nodes for name in node.input}
    output = helper.make_tensor_value_info("embedding_out", TensorProto.FLOAT, ["batch", DIMENSION])
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used]
    graph = helper.make_graph(nodes, path.parent.name, inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def _artefact(path: str, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    parity = {"reference": "itself", "cosine_min": 1.0, "max_abs": 0.0, "samples": 1}
    return {"path": path, "opset": 20, "inputs": inputs, "max_batch": MAX_BATCH, "parity": parity}


def _random(name: str, *shape: int) -> NDArray[np.float32]:
    seed = int.from_bytes(name.encode().ljust(8, b"\0")[:8], "little")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


if __name__ == "__main__":
    sys.stdout.write(f"{build_toy_bundle(Path(sys.argv[1]))}\n")
