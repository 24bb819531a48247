"""A seventh modality is a recipe and a manifest: trained into a bundle's space, added to it, served by the service as it is."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bindery
from bindery.bundle import PACKAGED_BUNDLES, open_bundle
from export.cli import app as export_app
from tests.e2e.process import serving
from tests.toybundle import build_toy_bundle
from tests.training.toyset import COLOURS, make_pictures
from training.cli import app as train_app
from training.data.batches import Decoder
from training.data.manifest import read_manifest
from training.towers.package import load_tower

RECIPE = """
name = "xray"
text = "bundle:{bundle}"
prompts = ["an x-ray of {{}}", "{{}}"]
[spec]
kind = "image"
size = 16
[tower]
train = "all"
[tower.config]
architecture = "vit"
width = 32
layers = 2
heads = 2
mlp_width = 64
patch = 4
size = [16, 16]
dimension = {dimension}
[data]
manifest = "manifest.csv"
templates = ["an x-ray of {{}}"]
validation = "val"
[loss]
positives = "same_label"
[optim]
epochs = 12
batch = 24
rate = 3e-3
"""


@pytest.mark.parametrize("name", ["toy", pytest.param("starter", marks=pytest.mark.slow)])
def test_a_modality_that_nobody_knew_is_trained_added_and_served(tmp_path: Path, name: str) -> None:
    home = build_toy_bundle(tmp_path / "toy") if name == "toy" else PACKAGED_BUNDLES / "starter"
    before = open_bundle(home)
    manifest = make_pictures(tmp_path / "media", each=12, bad=1, val=3)
    (tmp_path / "xray.toml").write_text(RECIPE.format(bundle=home, dimension=before.manifest.dimension))
    trained = CliRunner().invoke(
        train_app, [str(tmp_path / "xray.toml"), "--media", str(tmp_path / "media"), "--out", str(tmp_path / "xray")]
    )
    assert trained.exit_code == 0, trained.output
    history = json.loads((tmp_path / "xray" / "history.json").read_text())
    assert history["loss"][-1][1] < history["loss"][0][1]

    added = ["add", "--bundle", str(home), "--tower", f"xray={tmp_path / 'xray'}", "--name", "mine", "--out", str(tmp_path / "mine")]
    result = CliRunner().invoke(export_app, added)
    assert result.exit_code == 0, result.output
    mine = open_bundle(tmp_path / "mine")
    assert mine.manifest.space == before.manifest.space
    assert set(mine.manifest.modalities) == {*before.manifest.modalities, "xray"}
    assert mine.manifest.modalities["xray"].artefacts[0].parity.cosine_min > 0.99999

    package = load_tower(tmp_path / "xray")
    items = read_manifest(manifest, split="val")
    decoder = Decoder(items, package.spec)
    pixels = [tensors["pixel_values"] for i in range(len(items)) if (tensors := decoder.tensors(i)) is not None]
    with torch.no_grad():
        expected = package.module()(torch.from_numpy(np.stack(pixels))).numpy()

    files = [("file", (item.path, decoder._files.source(item).data)) for item in items]
    with serving(tmp_path / "mine", tmp_path, decode_workers=1) as served:
        listed = httpx.get(f"{served.address}/v1/modalities").json()
        assert "xray" in json.dumps(listed)
        reply = httpx.post(f"{served.address}/v1/embed/xray", files=files, timeout=60).raise_for_status().json()
        vectors = np.array([item["embedding"] for item in reply["items"]])
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        old = httpx.post(f"{served.address}/v1/embed/image", files=files[:1], timeout=60).raise_for_status().json()
        labels = {"labels": list(COLOURS)}
        named = httpx.post(f"{served.address}/v1/classify/xray", files=files, data=labels, timeout=60).raise_for_status().json()
    kept = bindery.load(home).embed("image", [files[0][1][1]])[0]
    np.testing.assert_allclose(old["items"][0]["embedding"], kept, atol=1e-6)  # what was there before answers as before
    best = [item["labels"][0]["label"] for item in named["items"]]
    hits = sum(label == item.label for label, item in zip(best, items, strict=True))
    assert hits >= len(items) / 2  # chance: a quarter


def test_a_tower_of_another_space_is_not_added(tmp_path: Path) -> None:
    home = build_toy_bundle(tmp_path / "toy")
    make_pictures(tmp_path / "media", each=6)
    recipe = RECIPE.format(bundle=home, dimension=8).replace("epochs = 12", "epochs = 1").replace('validation = "val"', "")
    (tmp_path / "xray.toml").write_text(recipe)
    arguments = [str(tmp_path / "xray.toml"), "--media", str(tmp_path / "media"), "--out", str(tmp_path / "xray")]
    assert CliRunner().invoke(train_app, arguments).exit_code == 0
    tower = f"xray={tmp_path / 'xray'}"
    for options, said in (
        (["--bundle", "starter", "--tower", tower], "was trained in sha256:"),
        (["--bundle", str(home), "--tower", f"image={tmp_path / 'xray'}"], "has a modality 'image' already"),
    ):
        result = CliRunner().invoke(export_app, ["add", *options, "--out", str(tmp_path / "other")])
        assert result.exit_code == 2
        assert said in result.output
        assert not (tmp_path / "other").exists()
