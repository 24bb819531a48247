"""TensorRT engines ahead of time, on the machine that will serve: the server's start then finds them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bindery.bundle import Precision, open_bundle
from bindery.runtime.cores import usable_cores
from bindery.runtime.open import tensorrt_artefact
from bindery.runtime.tensorrt import open_tensorrt, order_of
from export.errors import ExportUsageError

log = logging.getLogger(__name__)


def build_engines(root: Path, cache_dir: Path, precision: Precision, modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Build what is not there, and prove all, by modality (default: each one): what runs it, its least cosine, seconds.

    In bf16 text is built exactly, as it is served. Raises `ExportUsageError`, `DeviceUnavailable` (no GPU, no TensorRT, not proved).
    """
    bundle = open_bundle(root)
    for name in modalities:
        if name not in bundle.manifest.modalities:
            raise ExportUsageError(f"--modality {name}: this bundle has {', '.join(bundle.manifest.modalities)}")
    found: dict[str, dict[str, Any]] = {}
    for name in modalities or bundle.manifest.modalities:
        served: Precision = "exact" if precision == "bf16" and bundle.modality(name).kind == "text" else precision
        order = order_of(bundle, name, tensorrt_artefact(bundle, name, served), cache_dir=cache_dir, threads=usable_cores())
        started = time.monotonic()
        encoder = open_tensorrt(order)
        seconds = time.monotonic() - started
        found[name] = {
            "runtime": encoder.runtime,
            "provider": encoder.provider,
            "precision": encoder.precision,
            "cosine_min": order.proved(encoder),
            "seconds": round(seconds, 1),
        }
    return found
