"""A reduced precision of a bundle that is there, measured against its exact one on this machine and written into its manifest.

bf16 runs the exact graph as it is; int8 gets a graph of its own, made from the exact one. Text stays exact in both, so it is
never proved. What falls below the floor is refused, and then the bundle stays as it was.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bindery.bundle import MANIFEST, Artefact, Bundle, FileEntry, Manifest, Modality, Parity, file_digest, open_bundle
from bindery.decoded import Tensors
from bindery.disk import to_disk
from bindery.embedder import Embedder
from bindery.errors import InternalError
from bindery.kinds import KINDS, parse_options
from bindery.media.source import Source
from bindery.runtime.collate import collate
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.processor import processor_name
from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from export.errors import ExportError, ExportUsageError, ParityError
from export.parity import batch_sizes
from export.samples import noise
from export.weight_file import WeightFile, stored_bytes
from export.weights import store_as, widen

Reduced = Literal["bf16", "int8"]
T = TypeVar("T")

BATCH_TOLERANCE = 1e-5
"""How far a vector may move with the items beside it: the house's rule for every encoder."""

MIN_COSINE, MAX_DROP = 0.99, 0.005
"""The usual floors: the least cosine of an item's two vectors, and the most that top-1 may fall, 0.005 for half a point."""

MOST_FILES = 512
"""Of one folder, evenly taken: a proof, not an evaluation."""

_INLINE_BYTES = 1 << 30
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProofOrder:
    """``media``: modality → folder of files. ``labelled``: modality → folder of folders, each named as its files' label."""

    precision: Reduced
    media: Mapping[str, Path] = field(default_factory=dict)
    labelled: Mapping[str, Path] = field(default_factory=dict)
    min_cosine: float = MIN_COSINE
    max_drop: float = MAX_DROP


@dataclass(frozen=True, slots=True)
class _Sample:
    items: list[Tensors]
    said: str
    labels: tuple[str, ...] = ()
    truth: tuple[int, ...] = ()


def prove(root: Path, order: ProofOrder) -> dict[str, Parity]:
    """Measure, and write what was found into the manifest; gives it by modality.

    Raises `ExportUsageError` (a modality or a folder that is not there), `ParityError` (below the floor, or a vector that
    depends on its batch mates), `DeviceUnavailable` (this machine does not compute the precision), the media errors.
    """
    bundle = open_bundle(root)
    modalities = _provable(bundle, order)
    exact = Embedder(bundle, device="cpu")
    samples = {name: _sample(exact, name, order) for name in modalities}
    with contextlib.ExitStack() as kept:
        found: dict[str, Artefact] = {}
        for name in modalities:
            artefact = _candidate(bundle, name, order.precision, kept)
            encoder = open_reduced(bundle, artefact)
            parity = _measured(exact, name, encoder, samples[name], order.precision)
            require(name, parity, order)
            log.info(
                "%s: %s cosine %.6f (mean %.6f) %s", name, order.precision, parity.cosine_min, parity.cosine_mean, parity.accuracy or ""
            )
            found[name] = artefact.model_copy(update={"parity": parity})
        _write(bundle, found)
        kept.pop_all()  # the new graphs stay
    return {name: artefact.parity for name, artefact in found.items()}


def open_reduced(bundle: Bundle, artefact: Artefact) -> Encoder:
    from bindery.runtime.openvino import OpenVinoEncoder

    return OpenVinoEncoder(bundle.path(artefact.path), artefact, dimension=bundle.manifest.dimension, threads=usable_cores())


def _provable(bundle: Bundle, order: ProofOrder) -> list[str]:
    names = [name for name, modality in bundle.manifest.modalities.items() if modality.kind != "text"]
    for option, places in (("--media", order.media), ("--labelled", order.labelled)):
        for name, place in places.items():
            if name not in names:
                raise ExportUsageError(
                    f"{option} names modality {name!r}; to be proved are {', '.join(names) or 'none'} (text is always computed exactly)"
                )
            if not place.is_dir():
                raise ExportUsageError(f"{option} {name}={place}: not a folder")
    both = sorted(order.media.keys() & order.labelled.keys())
    if both:
        raise ExportUsageError(f"--media and --labelled both name {both[0]!r}; the labelled files are enough")
    if not names:
        raise ExportUsageError(f"bundle {bundle.name!r} has text only, which is always computed exactly: there is nothing to prove")
    return names


def _sample(exact: Embedder, name: str, order: ProofOrder) -> _Sample:
    if name in order.labelled:
        root = order.labelled[name]
        labels = sorted(path.name for path in root.iterdir() if path.is_dir())
        files = [(path, label) for label, folder in enumerate(labels) for path in _files(exact.bundle, name, root / folder)]
        if len(labels) < 2 or not files:
            raise ExportUsageError(f"--labelled {name}={root}: it needs two folders or more, named as labels, with files in them")
        files = _evenly(files)
        items = [_prepared(exact, name, path) for path, _ in files]
        said = f"{len(items)} files of {len(labels)} labels in {root.name}"
        return _Sample(items, said, tuple(label.replace("_", " ") for label in labels), tuple(label for _, label in files))
    if name in order.media:
        found = _evenly(_files(exact.bundle, name, order.media[name]))
        if not found:
            raise ExportUsageError(f"--media {name}={order.media[name]}: no file that a modality of this kind takes")
        return _Sample([_prepared(exact, name, path) for path in found], f"{len(found)} files of {order.media[name].name}")
    artefact = _exact(exact.bundle.modality(name))
    return _Sample(noise(artefact.inputs, artefact.max_batch), f"{artefact.max_batch} items of noise")


def _files(bundle: Bundle, name: str, folder: Path) -> list[Path]:
    suffixes = KINDS[bundle.modality(name).kind].suffixes
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in suffixes)


def _evenly(values: list[T]) -> list[T]:
    if len(values) <= MOST_FILES:
        return values
    return [values[n * len(values) // MOST_FILES] for n in range(MOST_FILES)]


def _prepared(exact: Embedder, name: str, path: Path) -> Tensors:
    return exact.prepare(name, Source.of(path), parse_options(exact.bundle.modality(name).kind, {})).tensors


def _exact(modality: Modality) -> Artefact:
    exact = modality.artefact("exact")
    if exact is None:
        raise ExportError("the bundle has no exact graph to measure against; export it again")
    return exact


def _candidate(bundle: Bundle, name: str, precision: Reduced, kept: contextlib.ExitStack) -> Artefact:
    """The artefact to measure: the one that an earlier proof left, or a new one, whose graph vanishes with ``kept``."""
    proved = bundle.modality(name).artefact(precision)
    if proved is not None:
        return proved
    exact = _exact(bundle.modality(name))
    reduced = exact.model_copy(update={"precision": precision})
    if precision == "bf16" or exact.weights == "int8":
        return reduced
    place = PurePosixPath(exact.path)
    relative = str(place.with_name(f"{place.stem}.int8.onnx"))
    _save_int8(bundle.path(exact.path), bundle.path(relative), kept)
    return reduced.model_copy(update={"path": relative, "weights": "int8"})


def _save_int8(exact: Path, path: Path, kept: contextlib.ExitStack) -> None:
    model = ir.load(exact)
    widen(model)
    if store_as(model, "int8") == 0:
        raise ExportError(f"{exact} has no weights that could be stored in 8 bits")
    weights = path.with_suffix(".bin")
    for made in (path, weights):
        made.unlink(missing_ok=True)  # left by a proof that was killed: the manifest does not list it
        kept.callback(made.unlink, missing_ok=True)
    if stored_bytes(model) > _INLINE_BYTES:
        WeightFile(weights).take(model)
    else:
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.Tensor(value.const_value.numpy().copy(), name=value.name)
    ir.save(model, path)


def _measured(exact: Embedder, name: str, encoder: Encoder, sample: _Sample, precision: Reduced) -> Parity:
    wanted = _encoded(exact.encoder(name), sample.items)
    vectors = _encoded(encoder, sample.items)
    sizes = batch_sizes(encoder.max_batch)
    moved = _moved(encoder, sample.items, vectors, sizes)
    if not moved <= BATCH_TOLERANCE:
        raise ParityError(
            f"{name}: in {precision} a vector moves by {moved:.1e} with the items beside it; at most {BATCH_TOLERANCE:.0e} is allowed"
        )
    cosines = (vectors.astype(np.float64) * wanted).sum(axis=1)
    return Parity(
        reference="the exact graph on this machine, batch 1",
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        max_abs=float(np.abs(vectors - wanted).max()),
        samples=len(sample.items),
        batches=sizes,
        inputs=sample.said,
        accuracy=_accuracy(exact, name, sample, wanted, vectors, precision),
        measured_on=processor_name(),
    )


def _encoded(encoder: Encoder, items: Sequence[Tensors]) -> Vectors:
    try:
        return np.concatenate([encoder.encode(collate([item])) for item in items])
    except InternalError as error:
        raise ParityError(str(error)) from error


def _moved(encoder: Encoder, items: Sequence[Tensors], alone: Vectors, sizes: Sequence[int]) -> float:
    worst = 0.0
    for size in sizes:
        rows = [n % len(items) for n in range(size)]
        worst = max(worst, float(np.abs(encoder.encode(collate([items[n] for n in rows])) - alone[rows]).max()))
    return worst


def _accuracy(exact: Embedder, name: str, sample: _Sample, wanted: Vectors, vectors: Vectors, precision: Reduced) -> dict[str, float]:
    if not sample.labels:
        return {}
    prompts = exact.bundle.modality(name).prompts
    labels = label_vectors(exact.embed(exact.bundle.text_modality(), expand_labels(sample.labels, prompts)), len(prompts))
    truth = np.array(sample.truth)
    return {"exact": _top1(wanted, labels, truth), precision: _top1(vectors, labels, truth)}


def _top1(vectors: Vectors, labels: Vectors, truth: NDArray[np.int64]) -> float:
    return float(((vectors @ labels.T).argmax(axis=1) == truth).mean())


def require(name: str, parity: Parity, order: ProofOrder) -> None:
    """Raises `ParityError` below the order's floors. One file alone never decides: of 50 it would weigh two points."""
    # Written so that a NaN fails too.
    if not parity.cosine_min >= order.min_cosine:
        raise ParityError(f"{name}: {order.precision} has cosine {parity.cosine_min:.5f} to exact; at least {order.min_cosine} is asked")
    if parity.accuracy:
        drop = parity.accuracy["exact"] - parity.accuracy[order.precision]
        if not drop <= max(order.max_drop, 1 / parity.samples) + 1e-9:
            raise ParityError(f"{name}: {order.precision} costs {100 * drop:.1f} points of top-1; at most {100 * order.max_drop:g} may go")


def _write(bundle: Bundle, found: Mapping[str, Artefact]) -> None:
    modalities = dict(bundle.manifest.modalities)
    files = dict(bundle.manifest.files)
    for name, artefact in found.items():
        others = tuple(one for one in modalities[name].artefacts if one.precision != artefact.precision)
        modalities[name] = modalities[name].model_copy(update={"artefacts": (*others, artefact)})
        for path in _files_of(bundle, artefact):
            relative = str(path.relative_to(bundle.root))
            files[relative] = FileEntry(sha256=file_digest(path), bytes=path.stat().st_size)
    replace_manifest(bundle.root, bundle.manifest.model_copy(update={"modalities": modalities, "files": dict(sorted(files.items()))}))


def _files_of(bundle: Bundle, artefact: Artefact) -> Iterator[Path]:
    path = bundle.path(artefact.path)
    yield path
    beside = path.with_suffix(".bin")
    if path.name.endswith(".int8.onnx") and beside.is_file():
        yield beside


def replace_manifest(root: Path, manifest: Manifest) -> None:
    """In one step: who opens the bundle meanwhile finds the old one or the new one."""
    Manifest.model_validate(manifest.model_dump())
    handle, name = tempfile.mkstemp(prefix=f".{MANIFEST}.", dir=root)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(manifest.model_dump_json(indent=1) + "\n")
        to_disk(Path(name))
        os.chmod(name, (root / MANIFEST).stat().st_mode & 0o777)
        os.replace(name, root / MANIFEST)
        to_disk(root)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    open_bundle(root)  # what serving will do first
