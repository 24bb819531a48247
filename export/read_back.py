"""The towers of a bundle, back in torch: a graph says of which tower it was made, and which of its weights is which parameter.

Exporting renames, transposes and folds weights, so the export writes down what it can see (`remember`), and what was read back is
compared with the graph before anyone trains on it. Batch norm is folded into its convolution for good: it comes back as one that
changes nothing but the bias.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn

from bindery.bundle import Bundle
from bindery.runtime.open import open_encoder
from bindery.spec import TextSpec
from export.errors import ExportError, ExportUsageError
from export.parity import measure, reference_vectors
from export.samples import synthetic
from export.source import TowerSource
from training.towers.build import TowerConfig, build_tower
from training.towers.package import tower_with_weights
from training.towers.tower import Tower

PROPERTY = "bindery.tower"
"""Of the graph: JSON of the tower's config, and of the weights whose names the export changed."""

LEAST_COSINE = 0.9999
"""Of the graph and the tower that was read back from it."""

_HEAD = 8
"""Values that a weight is looked up by, before all of it is compared."""


def remember(model: ir.Model, tower: Tower) -> None:
    """Write into ``model``, which was just made of ``tower``, what `read_tower` needs. Before its weights are stored smaller."""
    values = {name: value.const_value for name, value in model.graph.initializers.items() if value.const_value is not None}
    arrays = {name: tensor.numpy() for name, tensor in values.items() if tensor.dtype == ir.DataType.FLOAT}
    starts: defaultdict[bytes, list[str]] = defaultdict(list)
    for name, array in arrays.items():
        starts[_start(array)].append(name)
    renamed: dict[str, list[str]] = {}
    for name, parameter in tower.state_dict().items():
        array = parameter.numpy()
        if name in arrays and np.array_equal(arrays[name], array):
            continue
        for form in ("same", "transposed"):
            sought = array.T if form == "transposed" else array
            found = next((one for one in starts[_start(sought)] if _repeats(arrays[one], sought)), None)
            if found is not None:
                renamed[name] = [found, form]
                break
    config = cast(Any, tower).config.model_dump(mode="json")
    model.metadata_props[PROPERTY] = json.dumps({"config": config, "renamed": renamed}, separators=(",", ":"))


def read_tower(path: Path) -> Tower:
    """The tower of a graph, in eval mode, float32. Raises `ExportError` when the graph does not say, or not all is there."""
    model = ir.load(path)
    said = model.metadata_props.get(PROPERTY)
    if said is None:
        raise ExportError(f"{path.name} does not say which tower it was made of: it was exported by an older bindery; export it again")
    document = json.loads(said)
    config: TowerConfig = TypeAdapter(TowerConfig).validate_python(document["config"])
    with torch.device("meta"):
        shape = build_tower(config)
    weights: dict[str, Tensor] = {}
    for name, wanted in shape.state_dict().items():
        graph_name, form = document["renamed"].get(name, (name, "same"))
        array = _stored(model, graph_name)
        if array is not None:
            weights[name] = _shaped(array, tuple(wanted.shape), form)
    for name, module in shape.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            weights |= _folded(model, name, module)
    return tower_with_weights(config, weights, str(path))


def bundle_sources(bundle: Bundle, modalities: Sequence[str] = ()) -> tuple[list[TowerSource], dict[str, Any]]:
    """Sources of a bundle's own towers (all, or those named), each compared with its graph when it is read; and provenance."""
    for name in modalities:
        if name not in bundle.manifest.modalities:
            raise ExportUsageError(f"bundle {bundle.name!r} has no modality {name!r}; it has {', '.join(bundle.manifest.modalities)}")
    sources = [_source(bundle, name) for name in modalities or bundle.manifest.modalities]
    manifest = bundle.manifest
    return sources, {"bundle": manifest.name, "version": manifest.version, "space": manifest.space}


def _source(bundle: Bundle, name: str) -> TowerSource:
    modality = bundle.modality(name)
    spec, tokenizer = modality.spec, None
    if isinstance(spec, TextSpec):
        tokenizer = bundle.path(spec.tokenizer).read_text(encoding="utf-8")
        spec = spec.model_copy(update={"tokenizer": "tokenizer.json"})
    return TowerSource(name, spec, lambda: _compared(bundle, name), modality.logit_scale, tuple(modality.prompts), tokenizer)


def _compared(bundle: Bundle, name: str) -> Tower:
    """Raises `ExportError` when tower and graph give different vectors."""
    artefact = bundle.modality(name).artefact("exact")
    if artefact is None:
        raise ExportError("the bundle has no exact graph to read a tower from")
    tower = read_tower(bundle.path(artefact.path))
    spec = bundle.modality(name).spec
    items = synthetic(spec, tower, 2, bundle.path(spec.tokenizer) if isinstance(spec, TextSpec) else bundle.root)
    pad_id = spec.pad_id if isinstance(spec, TextSpec) else 0
    parity = measure(open_encoder(bundle, name, device="cpu"), items, reference_vectors(tower, items), (1, len(items)), pad_id)
    if not parity.cosine_min >= LEAST_COSINE:
        raise ExportError(f"{name}: what was read back of the graph gives other vectors than the graph: cosine {parity.cosine_min:.6f}")
    return tower


def _start(array: NDArray) -> bytes:
    return np.asarray(array.reshape(-1)[:_HEAD], dtype=np.float32).tobytes()


def _repeats(array: NDArray, sought: NDArray) -> bool:
    """Whether ``array`` is ``sought``, or several of it behind each other, as a token that every frame begins with."""
    if array.size == 0 or sought.size == 0 or array.size % sought.size:
        return False
    return bool((array.reshape(-1, sought.size) == sought.reshape(1, -1)).all())


def _stored(model: ir.Model, name: str) -> NDArray | None:
    """A weight as float32, however it is stored (`export/weights.py`)."""
    initializers = model.graph.initializers
    for found in (name, f"{name}.stored"):
        value = initializers.get(found)
        if value is not None and value.const_value is not None:
            array = value.const_value.numpy()
            scale = initializers.get(f"{name}.scale")
            wide = array if array.dtype.kind == "i" and array.dtype.itemsize > 1 else array.astype(np.float32)
            return wide if scale is None or scale.const_value is None else wide * scale.const_value.numpy()
    return None


def _shaped(array: NDArray, shape: tuple[int, ...], form: str) -> Tensor:
    size = int(np.prod(shape, dtype=int))
    flat = array.reshape(-1)[:size]
    return torch.from_numpy((flat.reshape(shape[::-1]).T if form == "transposed" else flat.reshape(shape)).copy())


def _folded(model: ir.Model, name: str, norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """The batch norm beside a convolution that has taken it in: identity but for the bias. None where it was not taken in."""
    bias = _stored(model, f"{name.removesuffix('norm')}conv.weight_bias")
    if bias is None:
        return {}
    width = norm.num_features
    return {
        f"{name}.weight": torch.ones(width),
        f"{name}.bias": torch.from_numpy(bias.copy()),
        f"{name}.running_mean": torch.zeros(width),
        f"{name}.running_var": torch.full((width,), 1.0 - norm.eps),
        f"{name}.num_batches_tracked": torch.tensor(0),
    }
