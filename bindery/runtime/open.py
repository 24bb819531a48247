"""Which artefact, on which device: a choice that is announced, never silent."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from bindery.bundle import Artefact, Bundle, Precision
from bindery.errors import BundleDamaged, DeviceUnavailable
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.onnx import OnnxEncoder
from bindery.runtime.prepacked import Prepacked
from bindery.runtime.tensorrt import open_tensorrt, order_of, why_not

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
log = logging.getLogger(__name__)

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
"""Best first: `auto` takes the first that this installation has, and TensorRT before them where its engines can be kept."""

OPENVINO: tuple[Precision, ...] = ("bf16", "int8")
"""Precisions that OpenVINO computes, on the CPU only: ONNX Runtime widens both to float32 there."""


def open_encoder(
    bundle: Bundle,
    modality: str,
    *,
    device: Device = "auto",
    precision: Precision = "exact",
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Encoder:
    """Load one modality's graph.

    Text is computed exactly whatever ``precision`` is `bf16` or `int8` for the others: in OpenVINO a text's vector moves
    by 1e-3 with the texts beside it. ``threads``: of one graph run; default: the cores this process may use. ``cache_dir``: where
    graphs made ready for this machine are kept; None: nowhere. Raises `UnknownModality`, `DeviceUnavailable` (the device or the
    precision is not to be had), `BundleDamaged`.
    """
    if precision in OPENVINO and bundle.modality(modality).kind == "text":
        log.info("%s: computed in precision exact; in %s its vectors would depend on their batch mates", modality, precision)
        precision = "exact"
    cores = threads or usable_cores()
    if device == "tensorrt":
        wanted = tensorrt_artefact(bundle, modality, precision)
        return open_tensorrt(order_of(bundle, modality, wanted, cache_dir=cache_dir, threads=cores))
    artefact = _artefact(bundle, modality, precision)
    if precision in OPENVINO:
        return _on_openvino(bundle, modality, artefact, device, cores)
    candidates = _candidates(device, cache_dir)
    for candidate in candidates:
        try:
            if candidate == "tensorrt":
                return open_tensorrt(order_of(bundle, modality, artefact, cache_dir=cache_dir, threads=cores))
            return _on_onnxruntime(bundle, artefact, candidate, cores, cache_dir)
        except DeviceUnavailable as error:
            if candidate == candidates[-1]:
                raise
            log.warning("%s: %s: %s", modality, candidate, error)
    raise AssertionError("there is always a last candidate. This is a bug.")


def _artefact(bundle: Bundle, modality: str, precision: Precision) -> Artefact:
    artefacts = {artefact.precision: artefact for artefact in bundle.modality(modality).artefacts}
    if precision in artefacts:
        return artefacts[precision]
    if precision == "bf16" and "exact" in artefacts:
        log.warning("%s: bundle %s was never measured in bf16; `bindery-export prove` measures it on this machine", modality, bundle.name)
        return artefacts["exact"].model_copy(update={"precision": "bf16"})
    raise DeviceUnavailable(f"modality {modality!r} of bundle {bundle.name!r} has no {precision!r} graph; it has: {', '.join(artefacts)}")


def tensorrt_artefact(bundle: Bundle, modality: str, precision: Precision) -> Artefact:
    """TensorRT computes the half precisions from the exact graph, and proves what it makes of it."""
    artefacts = {artefact.precision: artefact for artefact in bundle.modality(modality).artefacts}
    if precision == "fp16" and precision in artefacts:
        return artefacts[precision]
    exact = artefacts.get("exact")
    if exact is None:
        raise DeviceUnavailable(f"modality {modality!r} of bundle {bundle.name!r} has no exact graph; it has: {', '.join(artefacts)}")
    return exact.model_copy(update={"precision": precision})


def _on_openvino(bundle: Bundle, modality: str, artefact: Artefact, device: Device, threads: int) -> Encoder:
    if device == "cuda":
        raise DeviceUnavailable(
            f"precision {artefact.precision!r} is computed on the CPU; use device 'cpu', or precision 'exact' on the GPU"
        )
    if len(_candidates(device, None)) > 1:
        log.warning("%s: precision %s is computed on the CPU; the GPU stays idle", modality, artefact.precision)
    from bindery.runtime.openvino import OpenVinoEncoder

    return OpenVinoEncoder(bundle.path(artefact.path), artefact, dimension=bundle.manifest.dimension, threads=threads)


def _on_onnxruntime(bundle: Bundle, artefact: Artefact, device: str, threads: int, cache_dir: Path | None) -> Encoder:
    dimension = bundle.manifest.dimension
    if device == "cpu" and cache_dir is not None:
        ready = Prepacked(bundle, artefact, cache_dir)
        path = ready.path()
        if path is not None:
            try:
                return OnnxEncoder(
                    path, artefact, dimension=dimension, device=device, provider=PROVIDERS[device], threads=threads, optimised=True
                )
            except BundleDamaged as error:
                log.warning("what was kept of %s does not load and is thrown away: %s", artefact.path, error)
                ready.discard()
    return OnnxEncoder(
        bundle.path(artefact.path), artefact, dimension=dimension, device=device, provider=PROVIDERS[device], threads=threads
    )


def _candidates(wanted: Device, cache_dir: Path | None) -> list[str]:
    """Devices to try, best first."""
    available = set(ort.get_available_providers())
    if wanted == "auto":
        found = [device for device, provider in PROVIDERS.items() if provider in available]
        return ["tensorrt", *found] if cache_dir is not None and why_not() is None else found
    if PROVIDERS[wanted] not in available:
        raise DeviceUnavailable(
            f"device {wanted!r} was asked for, but this onnxruntime offers {sorted(available)}; "
            "install the `gpu` extra on a machine with an NVIDIA driver, or use device 'cpu'"
        )
    return [wanted]
