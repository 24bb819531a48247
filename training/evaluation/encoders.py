"""What is measured: a bundle's graphs, or towers still in torch; each file's vector is computed once a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bindery.bundle import Precision
from bindery.embedder import Embedder, load
from bindery.errors import BinderyError
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.runtime.collate import collate
from bindery.runtime.open import Device
from bindery.spec import Options, TextSpec
from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from training.evaluation.samples import Opener, Sample
from training.evaluation.task import TaskError
from training.text import PackageText
from training.towers.package import DOCUMENT, TowerPackage, load_tower

_CHUNK = 32
"""Files opened at a time."""
_BATCH = 16
"""Tensors a run of a torch tower."""


class Encodes(Protocol):
    """Files and texts to unit vectors in one space."""

    @property
    def about(self) -> dict[str, Any]: ...

    @property
    def dimension(self) -> int: ...

    @property
    def modalities(self) -> tuple[str, ...]: ...

    def prompts(self, modality: str) -> tuple[str, ...]: ...

    def calibration(self, modality: str) -> tuple[float | None, float | None]:
        """Its logit scale and its least similarity, each None where nobody measured it."""

    def texts(self, words: Sequence[str]) -> Vectors:
        """``(n, d)`` float32 unit rows."""

    def files(self, modality: str, sources: Sequence[Source], options: Mapping[str, Any]) -> Iterator[Vectors | BinderyError]:
        """Each file's ``(d,)`` vector or its error, in order."""


class BundleEncoder:
    """A bundle, as the service computes it."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def about(self) -> dict[str, Any]:
        bundle = self._embedder.bundle
        return {"name": bundle.name, "version": bundle.manifest.version, "space": bundle.manifest.space}

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    @property
    def modalities(self) -> tuple[str, ...]:
        return self._embedder.modalities

    def prompts(self, modality: str) -> tuple[str, ...]:
        return tuple(self._embedder.bundle.modality(modality).prompts)

    def calibration(self, modality: str) -> tuple[float | None, float | None]:
        entry = self._embedder.bundle.modality(modality)
        return entry.logit_scale, entry.min_similarity

    def texts(self, words: Sequence[str]) -> Vectors:
        return self._embedder.embed(self._embedder.bundle.text_modality(), list(words))

    def files(self, modality: str, sources: Sequence[Source], options: Mapping[str, Any]) -> Iterator[Vectors | BinderyError]:
        return self._embedder.embed_each(modality, sources, **options)


class TowerEncoder:
    """A directory of tower packages, one a modality and `text` among them: measured before anything is exported."""

    def __init__(self, directory: Path, *, device: str = "cpu", limits: Limits | None = None) -> None:
        self._directory = directory
        self._limits = limits or Limits()
        self._device = device
        self._packages = {path.parent.name: load_tower(path.parent) for path in sorted(directory.glob(f"*/{DOCUMENT}"))}
        texts = [name for name, package in self._packages.items() if isinstance(package.spec, TextSpec)]
        if len(texts) != 1:
            raise TaskError(f"{directory} needs one text tower among its packages; it has {len(texts)}")
        self._text = PackageText(self._packages[texts[0]], device=device)
        self._towers: dict[str, torch.nn.Module] = {}

    @property
    def about(self) -> dict[str, Any]:
        return {"name": self._directory.name, "towers": str(self._directory)}

    @property
    def dimension(self) -> int:
        return int(self.texts(["a"]).shape[1])

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self._packages)

    def prompts(self, modality: str) -> tuple[str, ...]:
        return self._packages[modality].prompts

    def calibration(self, modality: str) -> tuple[float | None, float | None]:
        return self._packages[modality].logit_scale, self._packages[modality].min_similarity

    def texts(self, words: Sequence[str]) -> Vectors:
        return self._text.arrays(words)

    def files(self, modality: str, sources: Sequence[Source], options: Mapping[str, Any]) -> Iterator[Vectors | BinderyError]:
        package = self._packages[modality]
        parsed = parse_options(package.spec.kind, dict(options))
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            pending = iter(sources)
            while chunk := list(islice(pending, _BATCH)):
                prepared = list(pool.map(lambda source: self._tensors(package, source, parsed), chunk))
                good = [one for one in prepared if not isinstance(one, BinderyError)]
                vectors = iter(self._run(modality, good))
                for one in prepared:
                    yield one if isinstance(one, BinderyError) else next(vectors)

    def _tensors(self, package: TowerPackage, source: Source, options: Options) -> dict[str, np.ndarray] | BinderyError:
        prepare = KINDS[package.spec.kind].prepare
        assert prepare is not None, f"kind {package.spec.kind} has no way from a file to a tensor. This is a bug."
        try:
            return dict(prepare(source, package.spec, options, self._limits).tensors)
        except BinderyError as error:
            return error

    @torch.no_grad()
    def _run(self, modality: str, tensors: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        if not tensors:
            return np.empty((0, 0), dtype=np.float32)
        if modality not in self._towers:
            self._towers[modality] = self._packages[modality].module().to(self._device)
        batch = {name: torch.from_numpy(array).to(self._device) for name, array in collate(tensors, 0).items()}
        return self._towers[modality](**batch).float().cpu().numpy()


def open_encoder_of(name: str, *, device: Device = "auto", precision: Precision = "exact", threads: int | None = None) -> Encodes:
    """A directory of tower packages, or a bundle by name or directory. Raises as `bindery.load`; `TaskError`, `TowerPackageError`."""
    if any(Path(name).glob(f"*/{DOCUMENT}")):
        if threads is not None:
            torch.set_num_threads(threads)
        return TowerEncoder(Path(name), device="cuda" if device == "cuda" else "cpu")
    return BundleEncoder(load(name, device=device, precision=precision, threads=threads))


class Remembered:
    """Vectors of samples' files and of texts, each computed once a run; what cannot be read stays out and is counted."""

    def __init__(self, encoder: Encodes) -> None:
        self.encoder = encoder
        self.errors: dict[str, str] = {}
        self._known: dict[tuple[str, str, str, str], Vectors | BinderyError] = {}
        self._texts: dict[str, Vectors] = {}

    def media(self, place: str, modality: str, samples: Sequence[Sample], options: Mapping[str, Any]) -> tuple[list[Sample], Vectors]:
        """The readable samples that have this modality, and their ``(n, d)`` vectors. ``place``: whose ids these are."""

        def key(sample: Sample) -> tuple[str, str, str, str]:
            return place, modality, repr(sorted(options.items())), sample.id

        having = [sample for sample in samples if modality in sample.media]
        new = iter([sample for sample in having if key(sample) not in self._known])
        while chunk := list(islice(new, _CHUNK)):
            opened = [_opened(sample.media[modality]) for sample in chunk]
            good = [one for one in opened if isinstance(one, Source)]
            vectors = iter(self.encoder.files(modality, good, options))
            for sample, one in zip(chunk, opened, strict=True):
                found = one if isinstance(one, BinderyError) else next(vectors)
                self._known[key(sample)] = found
                if isinstance(found, BinderyError):
                    self.errors[f"{modality} {sample.id}"] = f"{found.code}: {found.detail}"
        read = [(sample, found) for sample in having if not isinstance(found := self._known[key(sample)], BinderyError)]
        empty = np.empty((0, self.encoder.dimension), dtype=np.float32)
        return [sample for sample, _ in read], np.stack([found for _, found in read]) if read else empty

    def labels(self, words: Sequence[str], templates: Sequence[str]) -> Vectors:
        return label_vectors(self.texts(expand_labels(words, templates)), len(templates))

    def texts(self, words: Iterable[str]) -> Vectors:
        wanted = list(words)
        new = [text for text in dict.fromkeys(wanted) if text not in self._texts]
        if new:
            self._texts.update(zip(new, self.encoder.texts(new), strict=True))
        return np.stack([self._texts[text] for text in wanted])


def _opened(opener: Opener) -> Source | BinderyError:
    try:
        return opener()
    except BinderyError as error:
        return error
