"""A bundle's towers come back as they went in, and a recipe may start from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bindery.bundle import open_bundle
from export import read_back
from export.cli import app
from export.errors import ExportError, ExportUsageError
from export.read_back import bundle_sources, read_tower
from export.source import TowerSource
from export.weights import Storage
from export.write_bundle import BundleOrder, write_bundle
from tests.export.towers import IMAGE, IMAGE_SPEC, VIDEO, VIDEO_SPEC, image_source, text_source, tower
from training.recipe import TowerRecipe
from training.start import start_tower
from training.text import PackageText, frozen_text
from training.towers.build import TowerConfig
from training.towers.convnet import ConvNetConfig, Stage
from training.towers.package import load_tower
from training.towers.tower import Tower

CONVNET = ConvNetConfig(
    size=(32, 32), stem=8, features=32, hidden=16, dimension=16, stages=(Stage(blocks=2, channels=8, stride=1, kernel=3, expand=2),)
)


def stirred(config: TowerConfig) -> Tower:
    """Norms too have weights of their own, as after training."""
    made = tower(config, 3)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=random))
    return made


def written(out: Path, storage: Storage = "float32") -> Path:
    sources = [
        text_source(),
        image_source(),  # as it was drawn: equal norms become one weight of the graph
        TowerSource("video", VIDEO_SPEC, lambda: stirred(VIDEO), 20.0, ("a video of {}.",)),
        TowerSource("xray", IMAGE_SPEC, lambda: stirred(CONVNET), 20.0, ("{}",)),
    ]
    weights: dict[str, Storage] = {source.modality: storage for source in sources}
    write_bundle(out, sources, BundleOrder("tiny", "1", "CC0-1.0", weights=weights, max_batch={"image": 4, "video": 2, "xray": 2}))
    return out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("read") / "bundle")


def test_transformers_come_back_bit_for_bit(bundle: Path) -> None:
    for name, was in (("image", tower(IMAGE, 1)), ("video", stirred(VIDEO))):
        found = read_tower(bundle / name / "model.onnx").state_dict()
        assert found.keys() == was.state_dict().keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in was.state_dict().items())


def test_a_convolutional_tower_comes_back_with_its_norms_folded(bundle: Path) -> None:
    found, was = read_tower(bundle / "xray/model.onnx"), stirred(CONVNET)
    assert torch.equal(found.get_parameter("head.out.weight"), was.get_parameter("head.out.weight"))
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(found(pixel_values=pictures), was(pixel_values=pictures), atol=1e-5)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_weights_that_were_stored_smaller_are_widened(tmp_path: Path, storage: Storage) -> None:
    sources, origin = bundle_sources(open_bundle(written(tmp_path / "bundle", storage)))
    for source in sources:
        source.tower()  # compared with its graph
    assert origin["space"].startswith("sha256:")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["unpack", *(str(argument) for argument in arguments)])


def test_a_recipe_starts_from_a_bundles_towers(bundle: Path, tmp_path: Path) -> None:
    towers = tmp_path / "towers"
    result = run("--bundle", bundle, "--modality", "text", "--modality", "image", "--out", towers)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in towers.iterdir()) == ["image", "text"]
    assert load_tower(towers / "image").provenance["bundle"] == "tiny"
    assert load_tower(towers / "image").logit_scale == 20.0
    text = frozen_text("text", towers)
    assert isinstance(text, PackageText)
    np.testing.assert_allclose(
        text.arrays(["word3 word4"]), frozen_text(f"bundle:{bundle}", towers).arrays(["word3 word4"]), rtol=0, atol=1e-6
    )
    video = start_tower(TowerRecipe(config=VIDEO, start="image", train="lora"), towers)
    was = tower(IMAGE, 1).state_dict()
    assert torch.equal(video.state_dict()["layers.0.temporal_attention.q.weight"], was["layers.0.attention.q.weight"])


def test_what_cannot_be_read_back_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportUsageError, match="no modality 'smell'"):
        bundle_sources(open_bundle(bundle), ["smell"])
    assert run("--bundle", bundle, "--openclip", "x", "--out", tmp_path / "a").exit_code == 2
    assert run("--out", tmp_path / "a").exit_code == 2
    monkeypatch.setattr(read_back, "read_tower", lambda _: tower(IMAGE, 9))
    (source,), _ = bundle_sources(open_bundle(bundle), ["image"])
    with pytest.raises(ExportError, match="other vectors"):
        source.tower()


def test_a_graph_of_an_older_bindery_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.write_bundle.remember", lambda *_: None)
    old = written(tmp_path / "bundle")
    result = run("--bundle", old, "--out", tmp_path / "towers")
    assert result.exit_code == 1
    assert "export it again" in json.dumps(result.output)
