"""What runs best on this machine: threads and batch of each graph, measured once, kept in a file, and used by every later start.

Measured on command (`bindery calibrate`), never at a start, which has to be quick. A record belongs to one bundle, precision,
device, runtime, processor and number of cores; for anything else it is not found. Settings that name a number overrule it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bindery.bundle import Bundle, Precision
from bindery.decoded import Tensors
from bindery.engine.canary import still_input
from bindery.known_answer import known_input
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import Device, open_encoder
from bindery.runtime.processor import processor_name
from bindery.spec import TextSpec

FOLDER = "calibration"
SAME = 1e-5
"""Most that a component of a vector may move by another number of threads; a number that moves it more is not taken."""
WORTH_IT = 0.97
"""Of the best rate. What reaches it with fewer threads, or in smaller batches, leaves more cores to the decoders and answers sooner."""

log = logging.getLogger(__name__)


class Tuned(BaseModel):
    """Of one graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(gt=0)
    max_batch: int = Field(gt=0)
    items_per_s: float
    measured: dict[str, float] = Field(description="items a second by 'threads x batch'")
    largest_move: float = Field(description="of a vector's component, from the default's, over what was tried and allowed")


class Record(BaseModel):
    """Of one bundle on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    machine: str
    modalities: dict[str, Tuned]


def read_calibration(folder: Path, bundle: Bundle, device: Device, precision: Precision) -> Mapping[str, Tuned]:
    """By modality; empty when this was never measured here. A file that cannot be read is told of and not used."""
    path = _path(folder, bundle, device, precision)
    if not path.is_file():
        return {}
    try:
        return Record.model_validate_json(path.read_bytes()).modalities
    except (OSError, ValidationError) as error:
        log.warning("the calibration %s is not used: %s", path, error)
        return {}


def write_calibration(folder: Path, bundle: Bundle, device: Device, precision: Precision, found: Mapping[str, Tuned]) -> Path:
    path = _path(folder, bundle, device, precision)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(Record(bundle=bundle.name, machine=_machine(), modalities=dict(found)).model_dump_json(indent=1) + "\n")
    os.replace(draft, path)
    return path


def calibrate(
    bundle: Bundle,
    modality: str,
    *,
    device: Device,
    precision: Precision,
    seconds: float,
    open_encoder: Callable[..., Encoder] = open_encoder,
) -> Tuned:
    """Try numbers of threads, then batches, for about ``seconds``; a graph whose one run takes longer gets one run of each."""
    item = _question(bundle, modality)
    cores = usable_cores()
    choices = sorted({cores, max(1, cores - 1), max(1, cores // 2)}, reverse=True)
    share = seconds / (len(choices) + 4)
    measured: dict[str, float] = {}
    rates: dict[int, float] = {}
    usual, largest_move = None, 0.0
    for threads in choices:
        encoder = open_encoder(bundle, modality, device=device, precision=precision, threads=threads)
        vector = encoder.encode(collate([item]))
        usual = vector if usual is None else usual
        moved = float(np.abs(vector - usual).max())
        if moved > SAME:
            log.warning("%s: with %d threads a vector moves by %.1e; not taken", modality, threads, moved)
            continue
        largest_move = max(largest_move, moved)
        rates[threads] = measured[f"{threads} x 1"] = _rate(encoder, item, 1, share)
    threads = _smallest(rates)
    encoder = open_encoder(bundle, modality, device=device, precision=precision, threads=threads)
    encoder.encode(collate([item]))
    by_batch = {1: rates[threads]}
    batch = 2
    while batch <= encoder.max_batch and batch / max(by_batch.values()) < seconds:
        by_batch[batch] = measured[f"{threads} x {batch}"] = _rate(encoder, item, batch, share)
        batch *= 2
    best = _smallest(by_batch)
    return Tuned(threads=threads, max_batch=best, items_per_s=by_batch[best], measured=measured, largest_move=largest_move)


def _rate(encoder: Encoder, item: Tensors, batch: int, seconds: float) -> float:
    """Items a second of the quickest run: a neighbour's load only ever makes a run slower."""
    tensors = collate([item] * batch)
    quickest, until = float("inf"), time.perf_counter() + seconds
    while quickest == float("inf") or time.perf_counter() < until:
        began = time.perf_counter()
        encoder.encode(tensors)
        quickest = min(quickest, time.perf_counter() - began)
    return round(batch / quickest, 3)


def _smallest(rates: Mapping[int, float]) -> int:
    """The smallest number whose rate is nearly the best."""
    return min(number for number, rate in rates.items() if rate >= WORTH_IT * max(rates.values()))


def _question(bundle: Bundle, modality: str) -> Tensors:
    entry = bundle.modality(modality)
    spec, inputs = entry.spec, entry.artefacts[0].inputs
    if isinstance(spec, TextSpec):
        return known_input(inputs, TextTokenizer(bundle.path(spec.tokenizer), spec))
    return known_input(inputs, None) if entry.canary is not None else still_input(entry.artefacts[0])


def _machine() -> str:
    import onnxruntime

    return f"{processor_name()}, {usable_cores()} cores, onnxruntime {onnxruntime.__version__}"


def _path(folder: Path, bundle: Bundle, device: Device, precision: Precision) -> Path:
    key = hashlib.sha256("\n".join((bundle.digest, device, precision, _machine())).encode()).hexdigest()
    return folder / f"{bundle.name}-{precision}-{key[:12]}.json"
