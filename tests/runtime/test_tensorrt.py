"""TensorRT up to the edge where a GPU begins: keys, profiles, options, the ladder, refusals, and the engine's path over fakes."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bindery.bundle import Bundle, find_bundle, open_bundle
from bindery.decoded import Tensors
from bindery.errors import DeviceUnavailable, InternalError
from bindery.runtime import onnx, tensorrt, tensorrt_engine
from bindery.runtime.binding import Bound
from bindery.runtime.cudart import Cudart
from bindery.runtime.gpu import Gpu, gpu, read_gpu
from bindery.runtime.machine_cache import FACTS
from bindery.runtime.open import open_encoder
from bindery.runtime.profiles import buckets, provider_shapes, whole
from bindery.runtime.tensorrt import provider_options
from tests.runtime.fake_tensorrt import FakeCuda, FakeTensorRt
from tests.toybundle import build_toy_bundle

H100 = Gpu("NVIDIA H100", "9.0", "580.65")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


Install = Callable[..., FakeTensorRt]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """A GPU with the package tensorrt, both fakes; no provider."""

    def installed(version: str = "10.16.1", device: Gpu = H100) -> FakeTensorRt:
        cuda = FakeCuda()
        module = FakeTensorRt(cuda, version)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(tensorrt, "gpu", lambda: device)
        monkeypatch.setattr(tensorrt_engine, "open_cudart", lambda: Cudart(cuda))
        return module

    return installed


def pictures(count: int) -> Tensors:
    return {"pixel_values": np.random.default_rng(1).standard_normal((count, 3, 32, 32)).astype(np.float32)}


def texts(count: int, length: int) -> Tensors:
    ids = np.random.default_rng(length).integers(3, 250, (count, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def entries(cache: Path) -> list[Path]:
    place = cache / "tensorrt"
    return sorted(place.iterdir()) if place.is_dir() else []


# Profiles and options


def test_the_profile_of_the_provider_spans_all_that_may_be_asked(toy: Bundle) -> None:
    image, text = toy.modality("image"), toy.modality("text")
    largest = image.artefacts[0].max_batch
    assert provider_shapes(whole(image.artefacts[0], image.spec)) == {
        "trt_profile_min_shapes": "pixel_values:1x3x32x32",
        "trt_profile_opt_shapes": f"pixel_values:{min(8, largest)}x3x32x32",
        "trt_profile_max_shapes": f"pixel_values:{largest}x3x32x32",
    }
    assert provider_shapes(whole(text.artefacts[0], text.spec))["trt_profile_max_shapes"] == (
        f"input_ids:{text.artefacts[0].max_batch}x77,attention_mask:{text.artefacts[0].max_batch}x77"
    )


@pytest.mark.parametrize("modality", ["image", "video", "text"])
def test_every_shape_has_a_bucket_and_small_ones_come_first(toy: Bundle, modality: str) -> None:
    entry = toy.modality(modality)
    artefact = entry.artefacts[0]
    profiles = buckets(artefact, entry.spec)
    for batch in (1, 2, artefact.max_batch):
        for tokens in (1, 16, 17, 77):
            shapes = {one.name: (batch, *(s if isinstance(s, int) else tokens for s in one.shape[1:])) for one in artefact.inputs}
            held = [profile.holds(shapes) for profile in profiles]
            assert any(held)
            if batch == 1:
                assert profiles[held.index(True)].largest[artefact.inputs[0].name][0] == 1
    beyond = {one.name: (artefact.max_batch + 1, *(s if isinstance(s, int) else 1 for s in one.shape[1:])) for one in artefact.inputs}
    assert not any(profile.holds(beyond) for profile in profiles)


def test_half_precisions_keep_norms_in_float32_and_exact_asks_for_none(toy: Bundle) -> None:
    image = toy.modality("image")
    profile = whole(image.artefacts[0], image.spec)
    exact = provider_options(profile, "exact", Path("/e"), Path("/t"))
    assert exact["trt_engine_cache_path"] == "/e"
    assert exact["trt_timing_cache_path"] == "/t"
    assert {"trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"} <= exact.keys()
    assert not [name for name in exact if "16" in name]
    bf16 = provider_options(profile, "bf16", Path("/e"), Path("/t"))
    assert bf16["trt_bf16_enable"] == bf16["trt_layer_norm_fp32_fallback"] == "True"
    assert "trt_fp16_enable" not in bf16


# What the machine is


class _Driver:
    """`libcuda`."""

    def __init__(self, devices: int = 1) -> None:
        self._devices = devices

    def cuInit(self, _: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGet(self, _: Any, index: int) -> int:  # noqa: N802
        return 0 if index < self._devices else 101

    def cuDeviceGetName(self, name: Any, _: int, __: Any) -> int:  # noqa: N802
        name.value = b"NVIDIA H100"
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, _: Any) -> int:  # noqa: N802
        number._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = 13000
        return 0


def test_a_gpu_is_its_name_its_capability_and_its_driver(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("580.65\n")
    assert read_gpu(_Driver(), tmp_path / "version") == H100
    assert read_gpu(_Driver(), tmp_path / "none") == Gpu("NVIDIA H100", "9.0", "for CUDA 13000")
    assert read_gpu(_Driver(devices=0), tmp_path / "none") is None


@pytest.mark.skipif(gpu() is not None, reason="there is a GPU here")
def test_without_a_gpu_tensorrt_is_refused_with_the_reason_and_auto_does_without(toy: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="no NVIDIA GPU"):
        open_encoder(toy, "image", device="tensorrt", cache_dir=tmp_path)
    assert open_encoder(toy, "image", cache_dir=tmp_path).device == "cpu"


def test_without_its_libraries_tensorrt_is_refused_with_where_to_read(toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "gpu", lambda: H100)
    monkeypatch.setattr(tensorrt, "provider_version", lambda: None)
    with pytest.raises(DeviceUnavailable, match=r"libnvinfer\.so\.10 nor the package tensorrt.*docs/tensorrt\.md"):
        open_encoder(toy, "image", device="tensorrt", cache_dir=tmp_path)


def test_engines_without_a_place_to_keep_them_are_refused(toy: Bundle, install: Install) -> None:
    install()
    with pytest.raises(DeviceUnavailable, match="BINDERY_CACHE_DIR"):
        open_encoder(toy, "image", device="tensorrt")
    assert open_encoder(toy, "image", device="auto").device == "cpu"


def test_a_provider_whose_library_is_of_another_major_version_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", "CPUExecutionProvider"])
    asked: list[str] = []
    monkeypatch.setattr(tensorrt, "library", lambda *names, **_: asked.extend(names))
    assert tensorrt.provider_version() is None
    assert asked == ["libnvinfer.so.10"]


# The engine's own path


@pytest.mark.parametrize("version", ["10.16.1", "11.4.0"])
def test_an_engine_gives_the_graphs_vectors_whatever_the_batch(toy: Bundle, tmp_path: Path, install: Install, version: str) -> None:
    module = install(version)
    encoder = open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    assert (encoder.device, encoder.runtime, encoder.provider) == ("cuda", f"tensorrt {version}", "TensorRT engine")
    exact = open_encoder(toy, "image", device="cpu", threads=1)
    for count in (1, 2, encoder.max_batch, 3 * encoder.max_batch + 1):  # more pieces than there are slots
        vectors = encoder.encode(pictures(count))
        assert vectors.shape == (count, 8)
        np.testing.assert_allclose(vectors, exact.encode(pictures(count)), atol=1e-6)
    (built,) = module.built
    assert built["flags"] == (2 if version.startswith("10") else 0)  # 11 has no other networks, and no flag
    assert built["cleared"] == ["TF32"]


def test_an_engine_takes_texts_of_any_length(toy: Bundle, tmp_path: Path, install: Install) -> None:
    module = install()
    encoder = open_encoder(toy, "text", device="tensorrt", threads=1, cache_dir=tmp_path)
    exact = open_encoder(toy, "text", device="cpu", threads=1)
    for count, length in [(1, 1), (1, 77), (3, 16), (4, 17)]:
        np.testing.assert_allclose(encoder.encode(texts(count, length)), exact.encode(texts(count, length)), atol=1e-6)
    assert len(module.built[0]["profiles"]) == 4
    with pytest.raises(InternalError, match="no such shapes"):
        encoder.encode(texts(1, 78))


def test_what_was_built_is_found_again_and_another_machine_builds_its_own(toy: Bundle, tmp_path: Path, install: Install) -> None:
    def opened(*arguments: Any) -> int:
        module = install(*arguments)
        open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
        return len(module.built)

    assert opened() == 1
    assert opened() == 0
    for other in (
        ("10.16.2",),
        ("10.16.1", Gpu("NVIDIA H200", "9.0", "580.65")),
        ("10.16.1", Gpu("NVIDIA H100", "9.0", "590.1")),
        ("10.16.1", Gpu("NVIDIA H100", "10.0", "580.65")),
    ):
        assert opened(*other) == 1, other
    assert opened() == 0
    assert len(entries(tmp_path)) == 5


def test_another_graph_and_other_profiles_are_other_engines(tmp_path: Path, install: Install) -> None:
    root = build_toy_bundle(tmp_path / "toy")
    module = install()
    open_encoder(open_bundle(root), "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    document = json.loads((root / "manifest.json").read_text())
    document["modalities"]["image"]["artefacts"][0]["max_batch"] += 1
    (root / "manifest.json").write_text(json.dumps(document))
    open_encoder(open_bundle(root), "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    document["files"]["image/model.onnx"]["sha256"] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(document))
    open_encoder(open_bundle(root, checksums=False), "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    assert len(module.built) == 3


@pytest.mark.parametrize("how", ["stale", "foreign", "truncated"])
def test_an_engine_that_is_not_this_machines_is_built_again_and_never_run(
    toy: Bundle, tmp_path: Path, install: Install, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    install()
    open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    (entry,) = entries(tmp_path)
    plan = entry / tensorrt_engine.PLAN
    match how:
        case "stale":  # the key says nothing, and TensorRT itself refuses it
            plan.write_bytes(plan.read_bytes().replace(b"10.16.1", b"10.15.0"))
        case "foreign":
            facts = json.loads((entry / FACTS).read_text())
            facts["facts"]["compute_capability"] = "8.0"
            (entry / FACTS).write_text(json.dumps(facts))
        case "truncated":
            plan.write_bytes(plan.read_bytes()[:20])
    module = install()
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    assert len(module.built) == 1
    assert "thrown away" in caplog.text or "made again" in caplog.text
    assert encoder.encode(pictures(1)).shape == (1, 8)


@pytest.mark.parametrize(("fault", "said"), [({"wrong": 1}, "gives other vectors"), ({"mates": 1e-3}, "with the items beside it")])
def test_an_engine_that_is_not_proved_is_not_kept_and_the_ladder_goes_on(
    toy: Bundle, tmp_path: Path, install: Install, caplog: pytest.LogCaptureFixture, fault: dict[str, Any], said: str
) -> None:
    module = install()
    for name, value in fault.items():
        setattr(module, name, value)
    with pytest.raises(DeviceUnavailable, match=said):
        open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    assert entries(tmp_path) == []
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(toy, "image", device="auto", threads=1, cache_dir=tmp_path)
    assert encoder.device == "cpu"
    assert said in caplog.text


def test_auto_takes_tensorrt_first_where_engines_can_be_kept(toy: Bundle, tmp_path: Path, install: Install) -> None:
    install()
    assert open_encoder(toy, "image", threads=1, cache_dir=tmp_path).provider == "TensorRT engine"


def test_kernels_times_are_kept_for_all_graphs_of_a_machine(toy: Bundle, tmp_path: Path, install: Install) -> None:
    module = install()
    for modality in ("image", "depth", "audio"):
        open_encoder(toy, modality, device="tensorrt", threads=1, cache_dir=tmp_path)
    assert [built["times_before"] for built in module.built] == ["", "t", "tt"]


def test_the_parsers_words_are_passed_on(tmp_path: Path, install: Install) -> None:
    install()
    bundle = open_bundle(build_toy_bundle(tmp_path / "toy"))
    (bundle.root / "image/model.onnx").write_bytes(b"not a graph")
    with pytest.raises(DeviceUnavailable, match=r"cannot read .*model\.onnx: error 0 of the parser"):
        open_encoder(bundle, "image", device="tensorrt", cache_dir=tmp_path)


@pytest.mark.parametrize(("precision", "said"), [("fp16", "graph's own types"), ("int8", "TensorRT computes exact, bf16, fp16")])
def test_precisions_that_an_engine_has_not_are_refused(toy: Bundle, tmp_path: Path, install: Install, precision: Any, said: str) -> None:
    install()
    with pytest.raises(DeviceUnavailable, match=said):
        open_encoder(toy, "image", device="tensorrt", precision=precision, cache_dir=tmp_path)


def test_what_cuda_says_is_passed_on(toy: Bundle, tmp_path: Path, install: Install) -> None:
    module = install()
    encoder = open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    module.cuda.fails = "cudaMemcpyAsync"
    with pytest.raises(InternalError, match="cudaMemcpyAsync failed: error 2"):
        encoder.encode(pictures(1))


def test_an_encoder_gives_back_all_that_it_took(toy: Bundle, tmp_path: Path, install: Install) -> None:
    module = install()
    encoder = open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    encoder.encode(pictures(1))
    assert module.cuda.memory
    del encoder
    assert module.cuda.memory == {}
    assert module.cuda.streams == {}


# ONNX Runtime's provider


class _Session:
    """As onnxruntime-gpu with TensorRT would: leaves an engine in the folder, and computes, here on the CPU."""

    opened: list[tuple[str, dict[str, str]]]
    leaves_engine = True
    real = onnxruntime.InferenceSession

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        self._session = _Session.real(path, options, providers=["CPUExecutionProvider"])
        self._first = providers[0]
        if self._first != "CPUExecutionProvider":
            name, given = self._first
            _Session.opened.append((name, given))
            if name == tensorrt.PROVIDER:
                assert providers[1][0] == "CUDAExecutionProvider"
                if _Session.leaves_engine:
                    (Path(given["trt_engine_cache_path"]) / "graph_sm90.engine").write_bytes(b"engine")

    def get_providers(self) -> list[str]:
        return [self._first if isinstance(self._first, str) else self._first[0]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> type[_Session]:
    _Session.opened, _Session.leaves_engine = [], True
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Session)
    monkeypatch.setattr(onnx, "Bound", lambda session, *_: Bound(session._session, "cpu"))  # this package has no memory on a GPU
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(tensorrt, "gpu", lambda: H100)
    monkeypatch.setattr(tensorrt, "provider_version", lambda: "101601")
    return _Session


def test_the_provider_builds_once_in_a_folder_that_then_is_read(toy: Bundle, tmp_path: Path, provider: type[_Session]) -> None:
    encoder = open_encoder(toy, "image", device="tensorrt", precision="fp16", threads=1, cache_dir=tmp_path)
    assert (encoder.provider, encoder.precision, encoder.device) == (tensorrt.PROVIDER, "fp16", "cuda")
    (entry,) = entries(tmp_path)
    built, read = [options for _, options in provider.opened]
    assert ".building." in built["trt_engine_cache_path"]
    assert read["trt_engine_cache_path"] == str(entry)
    assert built["trt_timing_cache_path"] == read["trt_timing_cache_path"]
    assert not built["trt_timing_cache_path"].startswith(str(entry))  # it grows; an entry does not change
    assert built["trt_fp16_enable"] == "True"
    open_encoder(toy, "image", device="tensorrt", precision="fp16", threads=1, cache_dir=tmp_path)
    assert len(provider.opened) == 3
    open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 2  # another precision, another engine


def test_a_provider_that_leaves_all_to_cuda_is_refused_and_cuda_is_announced(
    toy: Bundle, tmp_path: Path, provider: type[_Session], caplog: pytest.LogCaptureFixture
) -> None:
    provider.leaves_engine = False
    with pytest.raises(DeviceUnavailable, match="built no engine"):
        open_encoder(toy, "image", device="tensorrt", threads=1, cache_dir=tmp_path)
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(toy, "image", device="auto", threads=1, cache_dir=tmp_path)
    assert encoder.provider == "CUDAExecutionProvider"
    assert "built no engine" in caplog.text
    assert provider.opened[-1] == ("CUDAExecutionProvider", {"use_tf32": "0"})


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(tensorrt.why_not() is not None, reason=f"TensorRT: {tensorrt.why_not()}")
@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_on_a_gpu_engines_give_the_exact_vectors(tmp_path: Path, modality: str) -> None:
    starter = open_bundle(find_bundle("starter"))
    encoder = open_encoder(starter, modality, device="tensorrt", cache_dir=tmp_path)  # proved while it is built
    again = open_encoder(starter, modality, device="tensorrt", cache_dir=tmp_path)
    exact = open_encoder(starter, modality, device="cpu")
    shape = tuple(s if isinstance(s, int) else 3 if s == "batch" else 9 for s in starter.modality(modality).artefacts[0].inputs[0].shape)
    if modality == "text":
        batch: Tensors = {"input_ids": np.full(shape, 7), "attention_mask": np.ones(shape, np.int64)}
    else:
        batch = {"pixel_values": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    assert np.array_equal(encoder.encode(batch), again.encode(batch))
    assert (encoder.encode(batch) * exact.encode(batch)).sum(axis=1).min() > 0.9999


def test_the_fake_cuda_does_nothing_before_the_stream_is_waited_for() -> None:
    library = FakeCuda()
    cuda = Cudart(library)
    stream, there, here = cuda.stream(), cuda.device_memory(4), cuda.pinned_memory(4)
    ctypes.memmove(here, b"abcd", 4)
    cuda.copy_in(there, here, 4, stream)
    assert ctypes.string_at(there, 4) == b"\0\0\0\0"
    cuda.wait(stream)
    assert ctypes.string_at(there, 4) == b"abcd"
