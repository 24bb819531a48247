from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from bindery.spec import ImageSpec
from tests.training.toyset import DIMENSION, make_pictures, make_text_tower
from training.checkpoint import Checkpoints
from training.cli import app
from training.recipe import RecipeError
from training.text import PackageText
from training.towers.package import load_tower, save_tower
from training.towers.vit import VitConfig, VitTower

RECIPE = """
name = "toy"
text = "text"
[spec]
kind = "image"
size = 16
[tower]
start = "vit"
train = "lora"
[data]
manifest = "manifest.csv"
templates = ["a photo of {}"]
held_out = 0.1
threads = 2
[augment]
flip = true
mixup = 0.3
[optim]
epochs = 4
batch = 12
rate = 3e-3
warmup_steps = 3
[watch]
every = 3
keep = "best"
"""
# 48 pictures and a bad one, 4 of them kept aside: 3 steps an epoch, 12 in all.

KILLED = """
import os, signal, sys
from pathlib import Path
from training.recipe import read_recipe
from training.assembly import Places
from training.trainer import Saving, train

root, stop = Path(sys.argv[1]), int(sys.argv[2])

def report(step):
    if step.done == stop:
        os.kill(os.getpid(), signal.SIGKILL)

train(read_recipe(root / "toy.toml"), Places(root / "media", root / "towers", root / "out"), saving=Saving(every=2), report=report)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_text_tower(tmp_path / "towers" / "text")
    torch.manual_seed(1)
    config = VitConfig(width=32, layers=2, heads=2, mlp_width=64, patch=4, size=(16, 16), dimension=DIMENSION, patch_dropout=0.25)
    save_tower(tmp_path / "towers" / "vit", VitTower(config), config, ImageSpec(size=16))
    make_pictures(tmp_path / "media", each=12, bad=1)
    (tmp_path / "toy.toml").write_text(RECIPE)
    return tmp_path


def _train(root: Path, out: str, *options: str) -> Any:
    places = ["--media", str(root / "media"), "--towers", str(root / "towers"), "--out", str(root / out)]
    return CliRunner().invoke(app, [str(root / "toy.toml"), *places, *options])


def _weights(package: Path) -> dict[str, torch.Tensor]:
    return load_file(package / "weights.safetensors")


def test_killed_and_resumed_ends_with_the_weights_of_the_undisturbed_run(root: Path) -> None:
    result = _train(root, "undisturbed")
    assert result.exit_code == 0, result.output
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root), "8"], check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert not (root / "out" / "weights.safetensors").exists()
    # Killed after step 8 and before its checkpoint: the newest is that of step 6; the next kill falls into an epoch.
    killed = subprocess.run([sys.executable, "-c", KILLED.replace("every=2", "every=2, resume=True"), str(root), "11"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in sorted((root / "out" / "checkpoints").iterdir())] == ["step-00000008.pt", "step-00000010.pt"]

    result = _train(root, "out", "--resume", "--save-every", "2")
    assert result.exit_code == 0, result.output
    assert "resumed after 10 steps" in result.output
    whole, resumed = _weights(root / "undisturbed"), _weights(root / "out")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (root / "out" / "history.json").read_bytes() == (root / "undisturbed" / "history.json").read_bytes()
    first, second = load_tower(root / "undisturbed"), load_tower(root / "out")
    assert (first.logit_scale, first.provenance) == (second.logit_scale, second.provenance)  # mean losses and skipped items too

    again = _train(root, "out", "--resume", "--save-every", "2")  # a supervisor that starts it once more changes nothing
    assert "resumed after 12 steps" in again.output
    assert all(torch.equal(resumed[name], tensor) for name, tensor in _weights(root / "out").items())


def test_a_run_that_did_not_end_is_not_thrown_away_by_accident(root: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(root), "5"], check=False, timeout=300)
    result = _train(root, "out")
    assert result.exit_code == 2
    assert "did not end" in result.output
    (root / "toy.toml").write_text(RECIPE.replace("rate = 3e-3", "rate = 1e-3"))
    result = _train(root, "out", "--resume")
    assert result.exit_code == 2
    assert "the recipe changed" in " ".join(result.output.split())
    (root / "toy.toml").write_text(RECIPE)
    manifest = root / "media" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("red paint", "blue paint"))
    result = _train(root, "out", "--resume")
    assert "the items changed" in " ".join(result.output.split())


def test_resume_begins_where_there_is_nothing(root: Path) -> None:
    result = _train(root, "out", "--resume")
    assert result.exit_code == 0, result.output
    assert "resumed" not in result.output


def test_what_was_cut_short_while_writing_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() is None
    checkpoints.save(3, {"done": 3, "tensor": torch.arange(4)})
    (tmp_path / "step-00000004.unfinished").write_bytes(b"half")
    found = checkpoints.newest()
    assert found is not None
    assert found[1]["done"] == 3
    assert torch.equal(found[1]["tensor"], torch.arange(4))
    for step in (4, 5, 6):
        checkpoints.save(step, {"done": step})
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["step-00000005.pt", "step-00000006.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(1, {"done": 1})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecipeError, match=r"step-00000001\.pt cannot be read"):
        Checkpoints(tmp_path).newest()


def test_a_resumed_text_tower_computes_each_text_among_the_same_mates(tmp_path: Path) -> None:
    package = load_tower(make_text_tower(tmp_path))
    first, second = PackageText(package), PackageText(package)
    before = first.vectors(["a photo of red", "blue"])
    first.vectors(["green paint of a picture", "blue", "white"])
    second.restore(first.state())
    assert torch.equal(second.vectors(["blue"]), before[1:])  # with its first mate, though it is asked for alone
    assert second.state() == first.state() == [["a photo of red", "blue"], ["green paint of a picture", "white"]]
