from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.toyset import DIMENSION, make_pictures, make_text_tower
from training.cli import app
from training.towers.package import load_tower

RECIPE = f"""
name = "toy"
text = "text"
[spec]
kind = "image"
size = 16
[tower]
train = ["trunk", "head"]
[tower.config]
architecture = "convnet"
size = [16, 16]
stem = 8
stages = [{{ kernel = 3, stride = 2, expand = 2, channels = 8, blocks = 1 }}]
features = 16
dimension = {DIMENSION}
[data]
manifest = "manifest.csv"
held_out = 0.3
[optim]
epochs = 2
batch = 8
rate = 1e-3
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    make_text_tower(tmp_path / "towers" / "text")
    make_pictures(tmp_path / "media", each=8, bad=1)
    (tmp_path / "toy.toml").write_text(RECIPE)
    return [
        str(tmp_path / "toy.toml"),
        "--media",
        str(tmp_path / "media"),
        "--towers",
        str(tmp_path / "towers"),
        "--out",
        str(tmp_path / "out"),
    ]


def test_a_recipe_becomes_a_tower_package(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    package = load_tower(tmp_path / "out")
    assert package.provenance["recipe"] == "toy"
    assert package.module().dimension == DIMENSION
    assert "skipped bad/0.png: UnreadableMedia" in result.output


def test_what_is_wrong_is_said_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(RECIPE.replace("epochs = 2", "epocs = 2"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "optim.epochs" in result.output
    assert "Traceback" not in result.output


def test_a_dry_run_shows_data_and_shapes_and_writes_nothing(arguments: list[str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "25 items to train on, 8 aside; 5 labels, 10 different captions" in result.output  # 2 of 8 a colour are kept aside
    assert "6 steps in 2 epochs" in result.output
    assert "pixel_values (8, 3, 16, 16)" in result.output or "pixel_values (7, 3, 16, 16)" in result.output
    assert "contrastive" in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_what_a_run_would_refuse(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "media" / "manifest.csv").write_text("path,captions,split\nbad/0.png,a photo of red,train\n")
    (tmp_path / "media" / "bad").mkdir()
    (tmp_path / "media" / "bad" / "0.png").write_bytes(b"no picture")
    result = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert result.exit_code == 2
    assert "no item of the first batch could be read" in " ".join(result.output.split())
