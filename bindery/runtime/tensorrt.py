"""TensorRT engines: built on the machine that serves, proved, kept in the cache folder, and never run on another.

Two ways to the same `Encoder`: ONNX Runtime's TensorRT provider, which wants TensorRT 10, and the engine itself
(`tensorrt_engine.py`), which wants the package `tensorrt`. An engine depends on the graph, its profiles, the GPU, the driver and
TensorRT's version; all of them are its key, so whatever changes, another one is built.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from bindery.bundle import Artefact, Bundle, Precision
from bindery.errors import BundleDamaged, DeviceUnavailable
from bindery.runtime.encoder import Encoder
from bindery.runtime.gpu import Gpu, gpu, library
from bindery.runtime.machine_cache import Facts, MachineCache, graph_identity
from bindery.runtime.onnx import OnnxEncoder
from bindery.runtime.profiles import SHORT_TEXT, Profile, provider_shapes, whole
from bindery.runtime.proof import prove
from bindery.spec import TextSpec

PROVIDER = "TensorrtExecutionProvider"
WANTED = 10
"""The major version of TensorRT that ONNX Runtime's provider is linked with (`libnvinfer.so.10`); a newer one cannot take its place."""

COMPUTED: tuple[Precision, ...] = ("exact", "bf16", "fp16")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """One graph to be run by TensorRT on this machine's ``gpu``."""

    bundle: Bundle
    modality: str
    artefact: Artefact
    cache_dir: Path
    threads: int
    gpu: Gpu

    def facts(self, route: str, tensorrt: str, profiles: tuple[Profile, ...]) -> Facts:
        return {
            "route": route,
            "graph": graph_identity(self.bundle, self.artefact),
            "precision": self.artefact.precision,
            "profiles": " | ".join(str(sorted(provider_shapes(one).items())) for one in profiles),
            **self.machine(tensorrt),
        }

    def machine(self, tensorrt: str) -> Facts:
        return {
            "gpu": self.gpu.name,
            "compute_capability": self.gpu.compute_capability,
            "driver": self.gpu.driver,
            "tensorrt": tensorrt,
        }

    def is_float32(self) -> bool:
        """Whether the graph is the exact one, in whatever precision it is asked for."""
        artefacts = self.bundle.modality(self.modality).artefacts
        return any(one.precision == "exact" and one.path == self.artefact.path for one in artefacts)

    def proved(self, built: Encoder) -> float:
        """The least cosine to the exact graph on the CPU. Raises `NotProved`."""
        exact = OnnxEncoder(
            self.bundle.path(self.artefact.path),
            self.artefact,
            dimension=self.bundle.manifest.dimension,
            device="cpu",
            provider="CPUExecutionProvider",
            threads=self.threads,
        )
        spec = self.bundle.modality(self.modality).spec
        lengths = sorted({min(SHORT_TEXT, spec.context_length), spec.context_length}) if isinstance(spec, TextSpec) else [1]
        least = prove(built, exact, self.artefact, lengths)
        log.info("%s: %s proved, cosine %.6f to the exact graph", self.modality, built.provider, least)
        return least


def why_not() -> str | None:
    """Why this machine has no TensorRT, for people; None when it has."""
    if gpu() is None:
        return "there is no NVIDIA GPU, or no driver"
    if provider_version() is None and importlib.util.find_spec("tensorrt") is None:
        return f"neither ONNX Runtime's {PROVIDER} with libnvinfer.so.{WANTED} nor the package tensorrt is installed; see docs/tensorrt.md"
    return None


def provider_version() -> str | None:
    """Of the TensorRT that ONNX Runtime's provider would use; None where there is no such provider or no library that fits it."""
    if PROVIDER not in ort.get_available_providers():
        return None
    found = library(f"libnvinfer.so.{WANTED}", package="tensorrt_libs")
    return None if found is None else str(found.getInferLibVersion())


def order_of(bundle: Bundle, modality: str, artefact: Artefact, *, cache_dir: Path | None, threads: int) -> Order:
    """Raises `DeviceUnavailable`: no GPU, no TensorRT, no folder for engines, a precision that is not computed here."""
    missing = why_not()
    if missing is not None:
        raise DeviceUnavailable(f"TensorRT: {missing}")
    if cache_dir is None:
        raise DeviceUnavailable("TensorRT engines take minutes to build and have to be kept: set BINDERY_CACHE_DIR")
    if artefact.precision not in COMPUTED:
        raise DeviceUnavailable(f"TensorRT computes {', '.join(COMPUTED)} here, not {artefact.precision}")
    device = gpu()
    assert device is not None, "why_not has looked. This is a bug."
    return Order(bundle, modality, artefact, cache_dir, threads, device)


def open_tensorrt(order: Order) -> Encoder:
    """Through ONNX Runtime's provider, else through the engine itself. Builds and proves what is not kept: that takes minutes.

    Raises `DeviceUnavailable`: an engine that cannot be built, or is not proved.
    """
    routes: list[Callable[[Order], Encoder]] = []
    if provider_version() is not None:
        routes.append(through_provider)
    if importlib.util.find_spec("tensorrt") is not None:
        from bindery.runtime.tensorrt_engine import through_engine

        routes.append(through_engine)
    for route in routes:
        try:
            return route(order)
        except DeviceUnavailable as error:
            if route is routes[-1]:
                raise
            log.warning("%s: TensorRT through ONNX Runtime: %s; its own engine is tried", order.modality, error)
    raise AssertionError("there is always a last route. This is a bug.")


def provider_options(profile: Profile, precision: Precision, engines: Path, timings: Path) -> dict[str, str]:
    """Of ONNX Runtime's TensorRT provider. Engines and the times of their kernels are kept in two folders."""
    options = {
        "device_id": "0",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(timings),
        **provider_shapes(profile),
    }
    if precision in ("bf16", "fp16"):
        # Norms in half precision are what makes vectors wrong, so they stay in float32.
        options |= {f"trt_{precision}_enable": "True", "trt_layer_norm_fp32_fallback": "True"}
    return options


def through_provider(order: Order) -> Encoder:
    """An entry holds the engines of one graph. Raises `DeviceUnavailable`."""
    version = provider_version()
    assert version is not None, "the caller has looked. This is a bug."
    profile = whole(order.artefact, order.bundle.modality(order.modality).spec)
    facts = {**order.facts("onnxruntime", version, (profile,)), "onnxruntime": ort.__version__}
    cache = MachineCache(order.cache_dir, "tensorrt")
    timings = timing_folder(order, version)

    def opened(engines: Path) -> OnnxEncoder:
        try:
            return OnnxEncoder(
                order.bundle.path(order.artefact.path),
                order.artefact,
                dimension=order.bundle.manifest.dimension,
                device="cuda",
                provider=PROVIDER,
                threads=order.threads,
                options=provider_options(profile, order.artefact.precision, engines, timings),
            )
        except BundleDamaged as error:  # the graph is whole, as others run it: it is TensorRT that cannot
            raise DeviceUnavailable(f"TensorRT cannot take this graph: {error}") from error

    def build(place: Path) -> None:
        order.proved(opened(place))
        if not list(place.glob("*.engine")):
            raise DeviceUnavailable(f"{PROVIDER} built no engine; all of the graph was left to CUDA")

    return ready(cache, facts, build, opened, order.modality)


def ready(cache: MachineCache, facts: Facts, build: Callable[[Path], None], opened: Callable[[Path], Encoder], modality: str) -> Encoder:
    """The entry's encoder; the entry is built if need be, and built again when it does not open. Raises `DeviceUnavailable`."""
    found = cache.find(facts)
    if found is not None:
        try:
            return opened(found)
        except DeviceUnavailable as error:
            log.warning("%s: the engine that was kept is thrown away: %s", modality, error)
            cache.discard(facts)
    log.warning("%s: building a TensorRT engine for %s; `bindery-export tensorrt` does that ahead of time", modality, facts["gpu"])
    try:
        return opened(cache.make(facts, build))
    except OSError as error:
        raise DeviceUnavailable(f"TensorRT engines cannot be kept in {cache.root}: {error}") from error


def timing_folder(order: Order, version: str) -> Path:
    """Where kernels' times are kept: of one machine, for all graphs. They make building faster and change no result."""
    place = MachineCache(order.cache_dir, "tensorrt-timings").place(order.machine(version))
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DeviceUnavailable(f"TensorRT's timings cannot be kept in {place}: {error}") from error
    return place
