"""Tower sources → a bundle on disk, all of it or nothing."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from pydantic import ValidationError

import bindery
from bindery.bundle import FORMAT, MANIFEST, Artefact, Bundle, FileEntry, KnownAnswer, Manifest, Modality, Parity, file_digest, open_bundle
from bindery.decoded import Tensors
from bindery.known_answer import TEXT, known_input
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.onnx import OnnxEncoder
from bindery.spec import Spec, TextSpec
from export.card import model_card
from export.errors import ExportError, ExportUsageError
from export.onnx_graph import opset, to_onnx
from export.parity import FLOORS, Floor, batch_sizes, measure, reference_vectors, require
from export.read_back import remember
from export.samples import from_files, synthetic
from export.source import TowerSource, check_fit
from export.space import space_of
from export.weight_file import WeightFile, stored_bytes
from export.weights import Storage, store_as
from training.towers.tower import Tower

log = logging.getLogger(__name__)

MAX_BATCH = {"text": 64, "image": 32, "thermal": 32, "depth": 32, "audio": 16, "video": 8}
"""By kind: about equal work in a full batch."""

MODALITY_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""A modality is a folder of the bundle and a part of an address."""

_UNMEASURED = Parity(reference="none yet", cosine_min=-1, max_abs=2, samples=0)

SHARED_FOLDER = "towers"
CARD = "MODEL_CARD.md"


@dataclass(frozen=True, slots=True)
class BundleOrder:
    """How the bundle is to be; what is not said for a modality follows its kind."""

    name: str
    version: str
    licence: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: str | None = None
    weights: Mapping[str, Storage] = field(default_factory=dict)
    max_batch: Mapping[str, int] = field(default_factory=dict)
    share_weights: bool = False
    min_cosine: float | None = None
    max_abs: float | None = None
    """Parity floors; those of the storage where none are given."""
    inline_bytes: int = 1 << 30
    """Weights beyond this lie beside the graph: protobuf ends at 2 GB."""
    samples: Mapping[str, Path] = field(default_factory=dict)
    """What to measure parity with, by modality: a folder of media, a file of texts; synthetic items where none are given."""

    def storage_of(self, source: TowerSource) -> Storage:
        return self.weights.get(source.modality, "float32")

    def floor_of(self, source: TowerSource) -> Floor:
        usual = FLOORS[self.storage_of(source)]
        return Floor(
            usual.cosine_min if self.min_cosine is None else self.min_cosine, usual.max_abs if self.max_abs is None else self.max_abs
        )

    def batch_of(self, source: TowerSource) -> int:
        return self.max_batch.get(source.modality, MAX_BATCH[source.spec.kind])


def write_bundle(out: Path, sources: Sequence[TowerSource], order: BundleOrder) -> Manifest:
    """Export, measure and write. ``out`` must not exist; on any error nothing is left there.

    Raises `ExportUsageError`, `ParityError`, `ExportError`.
    """
    _check(out, sources, order)
    with _staged(out) as staging:
        shared = WeightFile(_made(staging / SHARED_FOLDER) / "weights.bin") if order.share_weights else None
        modalities: dict[str, Modality] = {}
        dimensions: dict[str, int] = {}
        space = ""
        for source in sources:
            tower = source.tower()
            dimensions[source.modality] = tower.dimension
            if len(set(dimensions.values())) > 1:
                raise ExportError(f"towers of different dimensions cannot share a space: {dimensions}")
            spec = _with_tokenizer(staging, source)
            if isinstance(spec, TextSpec):
                assert source.tokenizer is not None
                space = space_of(tower, spec, source.tokenizer)
            modalities[source.modality] = _export(staging, source, spec, tower, order, shared)
        return _finish(staging, modalities, dimensions, space, order)


def extend_bundle(out: Path, bundle: Bundle, sources: Sequence[TowerSource], order: BundleOrder) -> Manifest:
    """Another bundle: everything that ``bundle`` has, byte for byte, and the ``sources`` beside it, in the same space.

    ``order.provenance`` is added to the bundle's own. Raises as `write_bundle` does.
    """
    _check_addition(out, bundle, sources, order)
    known = bundle.manifest
    with _staged(out) as staging:
        for relative in known.files:
            _made((staging / relative).parent)
            shutil.copyfile(bundle.path(relative), staging / relative)
        modalities = dict(known.modalities)
        for source in sources:
            tower = source.tower()
            if tower.dimension != known.dimension:
                raise ExportError(f"{source.modality}: vectors of {tower.dimension} values; the space has {known.dimension}")
            modalities[source.modality] = _export(staging, source, source.spec, tower, order, None)
        order = replace(order, provenance=_joined(known.provenance, order.provenance))
        return _finish(staging, modalities, {"": known.dimension}, known.space, order)


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**old, **new}
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping):
            joined[key] = {**old[key], **value}
    return joined


def _check_addition(out: Path, bundle: Bundle, sources: Sequence[TowerSource], order: BundleOrder) -> None:
    _check_place_and_names(out, sources, order)
    for source in sources:
        if isinstance(source.spec, TextSpec):
            raise ExportUsageError(f"{source.modality} is a text tower; the bundle keeps its own, which its space is named after")
        if source.modality in bundle.manifest.modalities:
            raise ExportUsageError(f"the bundle has a modality {source.modality!r} already; choose another name")


def _check(out: Path, sources: Sequence[TowerSource], order: BundleOrder) -> None:
    texts = [source.modality for source in sources if isinstance(source.spec, TextSpec)]
    if len(texts) != 1:
        raise ExportUsageError(f"a bundle has exactly one text tower, which its space is named after; given: {texts or 'none'}")
    _check_place_and_names(out, sources, order)


def _check_place_and_names(out: Path, sources: Sequence[TowerSource], order: BundleOrder) -> None:
    if out.exists():
        raise ExportUsageError(f"{out} exists; remove it or choose another --out")
    known = {source.modality for source in sources}
    for name in known:
        if not MODALITY_NAME.fullmatch(name):
            raise ExportUsageError(f"modality {name!r}: use small letters, digits, - and _, a letter first, at most 32")
    try:
        Manifest(
            format=FORMAT, name=order.name, version=order.version, space="", dimension=1, licence=order.licence, modalities={}, files={}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportUsageError(f"--{first['loc'][0]} {first['input']!r}: {first['msg']}") from error
    for what, names in (("--weights", order.weights), ("--max-batch", order.max_batch), ("--samples", order.samples)):
        for name in names:
            if name not in known:
                raise ExportUsageError(f"{what} names modality {name!r}; this bundle has {', '.join(sorted(known))}")


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A directory beside ``out`` that becomes ``out`` when the block ends well, and vanishes when it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes it private
        os.rename(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _with_tokenizer(staging: Path, source: TowerSource) -> Spec:
    if not isinstance(source.spec, TextSpec):
        return source.spec
    assert source.tokenizer is not None, "a text source carries its tokenizer. This is a bug."
    relative = _tokenizer_path(source)
    _made(staging / source.modality)
    (staging / relative).write_text(source.tokenizer, encoding="utf-8")
    return source.spec.model_copy(update={"tokenizer": relative})


def _tokenizer_path(source: TowerSource) -> str:
    return f"{source.modality}/tokenizer.json"


def _export(staging: Path, source: TowerSource, spec: Spec, tower: Tower, order: BundleOrder, shared: WeightFile | None) -> Modality:
    """``spec``: the source's, as the bundle has it."""
    check_fit(source.modality, source.spec, tower)
    storage, max_batch = order.storage_of(source), order.batch_of(source)
    batches = batch_sizes(max_batch)
    place, tokenizer = order.samples.get(source.modality), staging / _tokenizer_path(source)
    items = synthetic(source.spec, tower, max_batch, tokenizer) if place is None else from_files(source.spec, place, tokenizer)
    relative = f"{SHARED_FOLDER}/{source.modality}.onnx" if shared else f"{source.modality}/model.onnx"
    log.info("%s: exporting, weights as %s", source.modality, storage)
    graph_opset = _save_graph(staging / relative, source, tower, items, order, shared)
    artefact = Artefact(
        path=relative,
        weights=storage,
        opset=graph_opset,
        inputs=tower.inputs,
        max_batch=max_batch,
        parity=_UNMEASURED,
        built_with=_built_with(),
    )
    log.info("%s: measuring parity at batches %s", source.modality, list(batches))
    threads = usable_cores()
    encoder = OnnxEncoder(
        staging / relative, artefact, dimension=tower.dimension, device="cpu", provider="CPUExecutionProvider", threads=threads
    )
    pad_id = source.spec.pad_id if isinstance(source.spec, TextSpec) else 0
    parity = measure(encoder, items, reference_vectors(tower, items), batches, pad_id)
    require(parity, order.floor_of(source), source.modality)
    log.info("%s: cosine %.7f, component %.1e", source.modality, parity.cosine_min, parity.max_abs)
    return Modality(
        spec=spec,
        artefacts=(artefact.model_copy(update={"parity": parity}),),
        canary=_canary(encoder, source.spec, artefact, tokenizer),
        logit_scale=source.logit_scale,
        min_similarity=source.min_similarity,
        prompts=source.prompts or ("{}",),
    )


def _canary(encoder: Encoder, spec: Spec, artefact: Artefact, tokenizer: Path) -> KnownAnswer:
    words = TextTokenizer(tokenizer, spec) if isinstance(spec, TextSpec) else None
    (vector,) = encoder.encode(collate([known_input(artefact.inputs, words)]))
    numbers = tuple(round(float(value), 7) for value in vector)
    return KnownAnswer(recipe="stripes", vector=numbers) if words is None else KnownAnswer(recipe="text", text=TEXT, vector=numbers)


def _save_graph(
    path: Path, source: TowerSource, tower: Tower, items: Sequence[Tensors], order: BundleOrder, shared: WeightFile | None
) -> int:
    """Returns the graph's opset."""
    pad_id = source.spec.pad_id if isinstance(source.spec, TextSpec) else 0
    # The two longest items: a varying axis of length 1 would be taken for a constant.
    longest = sorted(items, key=lambda item: next(iter(item.values())).shape[0], reverse=True)[:2]
    batch = collate([longest[0], longest[-1]], pad_id)
    limits = {"batch": max(2, order.batch_of(source))}
    if isinstance(source.spec, TextSpec):
        limits["tokens"] = source.spec.context_length
    model = to_onnx(tower, {name: torch.from_numpy(value) for name, value in batch.items()}, limits)
    remember(model, tower)
    store_as(model, order.storage_of(source))
    _made(path.parent)
    if shared is not None:
        shared.take(model)
    elif stored_bytes(model) > order.inline_bytes:
        WeightFile(path.parent / "weights.bin").take(model)
    ir.save(model, path)
    return opset(model)


def _finish(staging: Path, modalities: Mapping[str, Modality], dimensions: Mapping[str, int], space: str, order: BundleOrder) -> Manifest:
    manifest = Manifest(
        format=FORMAT,
        name=order.name,
        version=order.version,
        space=space,
        dimension=next(iter(dimensions.values())),
        licence=order.licence,
        provenance=dict(order.provenance),
        modalities=dict(modalities),
        files=_listed(staging),
    )
    (staging / CARD).write_text(order.card or model_card(manifest), encoding="utf-8")
    manifest = manifest.model_copy(update={"files": _listed(staging)})
    (staging / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    open_bundle(staging)  # what serving will do first
    return manifest


def _listed(staging: Path) -> dict[str, FileEntry]:
    files = sorted(path for path in staging.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(staging)): FileEntry(sha256=file_digest(path), bytes=path.stat().st_size) for path in files}


def _built_with() -> dict[str, str]:
    # Fused operators of one runtime are unknown to the next; each fuses what it can when it loads the graph (bench/fusions.py).
    return {
        "bindery": bindery.__version__,
        "fusions": "left to the runtime",
        **{name: version(name) for name in ("torch", "onnxscript", "onnx-ir", "onnxruntime")},
    }


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
