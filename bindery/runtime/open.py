"""Which artefact, on which device: a choice that is announced, never silent."""

from __future__ import annotations

import logging
from typing import Literal

import onnxruntime as ort

from bindery.bundle import Artefact, Bundle, Precision
from bindery.errors import DeviceUnavailable
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.onnx import OnnxEncoder

Device = Literal["auto", "cpu", "cuda"]
log = logging.getLogger(__name__)

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
"""Best first: `auto` takes the first that this installation has."""


def open_encoder(
    bundle: Bundle, modality: str, *, device: Device = "auto", precision: Precision = "exact", threads: int | None = None
) -> Encoder:
    """Load one modality's graph.

    ``threads``: of one graph run; default: the cores this process may use. Raises `UnknownModality`,
    `DeviceUnavailable` (the device or the precision is not to be had), `BundleDamaged`.
    """
    artefact = _artefact(bundle, modality, precision)
    candidates = _candidates(device)
    for candidate in candidates:
        try:
            return OnnxEncoder(
                bundle.path(artefact.path),
                artefact,
                dimension=bundle.manifest.dimension,
                device=candidate,
                provider=PROVIDERS[candidate],
                threads=threads or usable_cores(),
            )
        except DeviceUnavailable as error:
            if candidate == candidates[-1]:
                raise
            log.warning("%s: %s", candidate, error)
    raise AssertionError("there is always a last candidate. This is a bug.")


def _artefact(bundle: Bundle, modality: str, precision: Precision) -> Artefact:
    artefacts = bundle.modality(modality).artefacts
    for artefact in artefacts:
        if artefact.precision == precision:
            return artefact
    offered = ", ".join(a.precision for a in artefacts)
    raise DeviceUnavailable(f"modality {modality!r} of bundle {bundle.name!r} has no {precision!r} graph; it has: {offered}")


def _candidates(wanted: Device) -> list[str]:
    """Devices to try, best first."""
    available = set(ort.get_available_providers())
    if wanted == "auto":
        return [device for device, provider in PROVIDERS.items() if provider in available]
    if PROVIDERS[wanted] not in available:
        raise DeviceUnavailable(
            f"device {wanted!r} was asked for, but this onnxruntime offers {sorted(available)}; "
            "install the `gpu` extra on a machine with an NVIDIA driver, or use device 'cpu'"
        )
    return [wanted]
