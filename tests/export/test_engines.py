from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bindery.bundle import open_bundle
from bindery.runtime import tensorrt, tensorrt_engine
from bindery.runtime.cudart import Cudart
from bindery.runtime.gpu import Gpu, gpu
from bindery.runtime.open import open_encoder
from export.cli import app
from tests.runtime.fake_tensorrt import FakeCuda, FakeTensorRt
from tests.toybundle import build_toy_bundle


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    cuda = FakeCuda()
    made = FakeTensorRt(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    monkeypatch.setattr(tensorrt, "gpu", lambda: Gpu("NVIDIA H100", "9.0", "580.65"))
    monkeypatch.setattr(tensorrt_engine, "open_cudart", lambda: Cudart(cuda))
    return made


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["tensorrt", *(str(argument) for argument in arguments)])


def test_engines_are_built_and_proved_ahead_and_the_server_finds_them(tmp_path: Path, module: FakeTensorRt) -> None:
    root, cache = build_toy_bundle(tmp_path / "toy"), tmp_path / "cache"
    result = run(root, "--cache-dir", cache)
    assert result.exit_code == 0, result.output
    engines = json.loads(result.stdout)["engines"]
    bundle = open_bundle(root)
    assert engines.keys() == bundle.manifest.modalities.keys()
    assert all(engine["cosine_min"] > 0.9999 and engine["runtime"] == "tensorrt 10.16.1" for engine in engines.values())
    built = len(module.built)
    assert built == len(engines)
    for modality in engines:
        open_encoder(bundle, modality, device="tensorrt", threads=1, cache_dir=cache)
    assert run(root, "--cache-dir", cache, "--modality", "image").exit_code == 0
    assert len(module.built) == built


def test_an_engine_that_is_not_proved_ends_with_1(tmp_path: Path, module: FakeTensorRt) -> None:
    module.wrong = 1
    result = run(build_toy_bundle(tmp_path / "toy"), "--cache-dir", tmp_path / "cache", "--modality", "image")
    assert result.exit_code == 1
    assert "gives other vectors than the exact graph" in result.stderr


@pytest.mark.skipif(gpu() is not None, reason="there is a GPU here")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    root = build_toy_bundle(tmp_path / "toy")
    result = run(root, "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 1
    assert "no NVIDIA GPU" in result.stderr
    assert run(root, "--cache-dir", tmp_path / "cache", "--precision", "int8").exit_code == 2
    assert run(root, "--cache-dir", tmp_path / "cache", "--modality", "smell").exit_code == 2
