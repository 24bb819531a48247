"""The notebook API: files in, vectors out, in this process and without queues.

`bindery.engine` is its big sister for many callers; both use the same media, prepare and runtime, and give the same vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bindery.bundle import Bundle, Precision, find_bundle, open_bundle
from bindery.clips import Clip, failure, mean_vector, part, windows
from bindery.decoded import Extent, Prepared
from bindery.errors import BinderyError, InvalidParameter
from bindery.in_memory import Input, source_of, text_of
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.scenes import find_cuts
from bindery.media.source import Source
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import Device, open_encoder
from bindery.spec import CLIP_SECONDS, Options, PartOptions, TextSpec
from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors, probabilities, unknown


class Embedder:
    """One bundle, its graphs opened when they are first needed."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        precision: Precision = "exact",
        threads: int | None = None,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self.bundle = bundle
        self.limits = limits or Limits()
        self._device: Device = device
        self._precision: Precision = precision
        self._threads = threads
        self._cache_dir = cache_dir
        self._encoders: dict[str, Encoder] = {}
        self._tokenizers: dict[str, TextTokenizer] = {}

    @property
    def dimension(self) -> int:
        return self.bundle.manifest.dimension

    @property
    def space(self) -> str:
        return self.bundle.manifest.space

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.bundle.manifest.modalities)

    def __repr__(self) -> str:
        return f"<Embedder {self.bundle.name!r}: {self.dimension} values, {', '.join(self.modalities)}>"

    def embed(self, modality: str, inputs: Input | Sequence[Input], **options: object) -> Vectors:
        """``(n, d)`` float32 rows of unit length, in the order of ``inputs``; one input that is no list gives ``(1, d)``.

        ``options`` are those of the modality's kind (`depth_unit`, `start`, `range_min`, ...). Raises the first item's
        error, which names the file; `embed_each` keeps the others.
        """
        rows: list[Vectors] = []
        for result in self.embed_each(modality, _as_list(inputs), **options):
            if isinstance(result, BinderyError):
                raise result
            rows.append(result)
        return np.stack(rows) if rows else np.empty((0, self.dimension), dtype=np.float32)

    def embed_each(self, modality: str, inputs: Sequence[Input], **options: object) -> Iterator[Vectors | BinderyError]:
        """Each input's ``(d,)`` vector or its error, in order. Works through any number of files in bounded memory.

        With ``clip_seconds`` (or ``clip_by="scenes"``) and ``pool="mean"``: the mean of the input's clips; the clips themselves
        are `embed_clips`'.
        """
        parsed = parse_options(self.bundle.modality(modality).kind, options)
        if isinstance(parsed, PartOptions) and parsed.clip_seconds is not None:
            if parsed.pool == "none":
                raise InvalidParameter('clip_seconds gives several vectors of an input: take embed_clips, or pool="mean" for their mean')
            for value in inputs:
                clips = self._clips_or_error(modality, value, parsed)
                yield clips if isinstance(clips, BinderyError) else mean_vector(clips)
            return
        yield from self._each(modality, ((value, parsed) for value in inputs))

    def embed_clips(self, modality: str, value: Input, **options: object) -> list[Clip]:
        """One video or sound as its clips, in the order of their time, each with its vector or its own error.

        ``options``: `clip_seconds` (10), `clip_stride` (0.8 of it), or `clip_by="scenes"` with `clip_seconds` as the longest and
        `clip_min_seconds` (2); and `start`, `end` for a part of it. Memory does not grow with its length. Raises the media
        errors, `TooLong` beyond ``limits.clips``, and a clip's error when all failed.
        """
        parsed = parse_options(self.bundle.modality(modality).kind, {"clip_seconds": CLIP_SECONDS, **options})
        assert isinstance(parsed, PartOptions), f"modality {modality} took clip_seconds and has no parts. This is a bug."
        clips = self._clips_or_error(modality, value, parsed)
        if isinstance(clips, BinderyError):
            raise clips
        return clips

    def classify(
        self,
        modality: str,
        inputs: Input | Sequence[Input],
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        **options: object,
    ) -> NDArray[np.float32]:
        """``(n, len(labels))`` float32 probabilities, in the labels' order; each row sums to 1.

        ``templates`` (one ``{}`` each) default to the bundle's prompts of this modality.
        """
        scale = self.bundle.modality(modality).logit_scale or 1.0
        return probabilities(self.embed(modality, inputs, **options), self.label_vectors(modality, labels, templates), scale)

    def unknown(
        self,
        modality: str,
        inputs: Input | Sequence[Input],
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        **options: object,
    ) -> NDArray[np.bool_]:
        """``(n,)``: whether none of the labels seems to fit, by the modality's `min_similarity`. The other arguments are `classify`'s.

        Raises `InvalidParameter` when the bundle states no `min_similarity` for it.
        """
        least = self.bundle.modality(modality).min_similarity
        if least is None:
            raise InvalidParameter(f"bundle {self.bundle.name} states no min_similarity for {modality}")
        return unknown(self.embed(modality, inputs, **options), self.label_vectors(modality, labels, templates), least)

    def label_vectors(self, modality: str, labels: Sequence[str], templates: Sequence[str] | None = None) -> Vectors:
        """``(labels, d)``: each label in every template (default: the bundle's prompts of the modality), their mean, of unit length."""
        prompts = list(templates) if templates is not None else list(self.bundle.modality(modality).prompts)
        return label_vectors(self.embed(self.bundle.text_modality(), expand_labels(labels, prompts)), len(prompts))

    def similarity(self, left: tuple[str, Sequence[Input]], right: tuple[str, Sequence[Input]]) -> NDArray[np.float32]:
        """Cosines ``(n, m)`` of ``(modality, inputs)`` against ``(modality, inputs)``."""
        return self.embed(*left) @ self.embed(*right).T

    def prepare(self, modality: str, value: Input, options: Options) -> Prepared:
        """One input's tensors. Raises the media errors of its kind."""
        spec = self.bundle.modality(modality).spec
        if isinstance(spec, TextSpec):
            return self._tokenizer(modality, spec).encode(text_of(value, self.limits))
        prepare = KINDS[spec.kind].prepare
        assert prepare is not None, f"kind {spec.kind} has no way from a file to a tensor. This is a bug."
        return prepare(source_of(modality, spec.kind, value), spec, options, self.limits)

    def encoder(self, modality: str) -> Encoder:
        if modality not in self._encoders:
            self._encoders[modality] = open_encoder(
                self.bundle,
                modality,
                device=self._device,
                precision=self._precision,
                threads=self._threads,
                cache_dir=self._cache_dir,
            )
        return self._encoders[modality]

    def _clips_or_error(self, modality: str, value: Input, options: PartOptions) -> list[Clip] | BinderyError:
        kind = self.bundle.modality(modality).kind
        measure = KINDS[kind].measure
        assert measure is not None, f"{modality} cannot be cut into clips. This is a bug."
        try:
            source = source_of(modality, kind, value)
            extent = measure(source, self.limits)
            cut = windows(source.name, extent, options, self.limits, self._cuts(source, extent, options))
        except BinderyError as error:
            return error
        vectors = self._each(modality, ((source, window.options) for window in cut))
        clips = [Clip(window, vector) for window, vector in zip(cut, vectors, strict=True)]
        return failure(clips) or clips

    def _cuts(self, source: Source, extent: Extent, options: PartOptions) -> list[float]:
        at, end = part(source.name, extent, options, self.limits)
        cuts: list[float] = []
        while options.clip_by == "scenes" and at < end:
            found = find_cuts(source, self.limits, at, end)
            cuts += found.times_s
            at = found.until_s
        return cuts

    def _each(self, modality: str, jobs: Iterable[tuple[Input, Options]]) -> Iterator[Vectors | BinderyError]:
        encoder = self.encoder(modality)
        spec = self.bundle.modality(modality).spec
        pad_id = spec.pad_id if isinstance(spec, TextSpec) else 0
        pending = iter(jobs)
        with ThreadPoolExecutor(max_workers=min(4, usable_cores())) as pool:
            while chunk := list(islice(pending, encoder.max_batch)):
                prepared = list(pool.map(lambda job: self._prepare_or_error(modality, *job), chunk))
                good = [p.tensors for p in prepared if isinstance(p, Prepared)]
                vectors = iter(encoder.encode(collate(good, pad_id))) if good else iter(())
                for item in prepared:
                    yield item if isinstance(item, BinderyError) else next(vectors)

    def _prepare_or_error(self, modality: str, value: Input, options: Options) -> Prepared | BinderyError:
        try:
            return self.prepare(modality, value, options)
        except BinderyError as error:
            return error

    def _tokenizer(self, modality: str, spec: TextSpec) -> TextTokenizer:
        if modality not in self._tokenizers:
            self._tokenizers[modality] = TextTokenizer(self.bundle.path(spec.tokenizer), spec)
        return self._tokenizers[modality]


def load(
    bundle: str | Path = "starter",
    *,
    device: Device = "auto",
    precision: Precision = "exact",
    threads: int | None = None,
    cache_dir: str | Path | None = None,
) -> Embedder:
    """Open a bundle by name or directory. ``cache_dir``: where graphs made ready for this machine are kept.

    Raises `BundleNotFound`, `BundleDamaged`, `BundleTooNew`.
    """
    kept = None if cache_dir is None else Path(cache_dir)
    return Embedder(open_bundle(find_bundle(bundle)), device=device, precision=precision, threads=threads, cache_dir=kept)


def _as_list(inputs: Input | Sequence[Input]) -> list[Input]:
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
