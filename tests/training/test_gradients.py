from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bindery.spec import ImageSpec
from tests.training.gradient_case import COUNT, gradients
from tests.training.test_trainer import CONV, _recipe, places  # noqa: F401  (a fixture)
from training.assembly import Places
from training.feed import WholeTower
from training.gradients import ComputeRecipe, Gradients, Task
from training.objective import ContrastiveTerm, Objective
from training.ranks import ALONE, Ranks
from training.recipe import RecipeError
from training.recompute import recompute_blocks
from training.towers.convnet import ConvNetTower
from training.towers.package import load_tower, save_tower
from training.towers.tower import unit
from training.towers.vit import VitConfig, VitTower
from training.trainer import train


def _close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], tolerance: float) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], atol=tolerance, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    made = gradients()
    assert {"class_embedding", "projection.weight", "logit_scale", "losses.1.weight", "layers.0.attention.q.lora_a"} <= made.keys()
    assert all(tensor.abs().max() > 1e-4 for tensor in made.values())
    return made


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_have_the_gradients_of_the_whole_batch(whole: dict[str, torch.Tensor], chunk: int) -> None:
    _close(gradients(chunk=chunk), whole, 1e-6)


def test_a_chunk_sees_the_same_random_numbers_both_times() -> None:
    torch.manual_seed(0)
    tower = VitTower(VitConfig(width=16, layers=1, heads=2, mlp_width=32, patch=4, size=(16, 16), dimension=8, patch_dropout=0.5)).train()
    objective = Objective([ContrastiveTerm()], [], dimension=8, temperature=0.1)
    pixels, text, together = torch.randn(6, 3, 16, 16), unit(torch.randn(6, 8)), torch.eye(6)

    torch.manual_seed(5)
    media = torch.cat([tower(part) for part in pixels.split(2)])  # the same dropout, with the whole graph in memory
    objective(media, text, together, ())[0].backward()
    expected = {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}
    tower.zero_grad()

    torch.manual_seed(5)
    task = Task({"pixel_values": pixels}, (6,), text, together, ())
    Gradients(WholeTower(tower), objective, ComputeRecipe(chunk=2), device="cpu", ranks=ALONE).add(task)
    _close({name: p.grad for name, p in tower.named_parameters() if p.grad is not None}, expected, 1e-6)
    after = torch.rand(1)
    torch.manual_seed(5)
    for part in pixels.split(2):
        tower(part)
    assert torch.equal(after, torch.rand(1))  # and the run goes on with the numbers that come next


def test_recomputed_activations_change_nothing(whole: dict[str, torch.Tensor]) -> None:
    _close(gradients(recompute=True), whole, 0)
    _close(gradients(dropout=0.5, recompute=True), gradients(dropout=0.5), 0)
    _close(gradients(recompute=True, chunk=3), whole, 1e-6)


def test_recomputing_keeps_less_for_the_way_back() -> None:
    def kept(recompute: bool) -> int:
        torch.manual_seed(0)
        tower = VitTower(VitConfig(width=32, layers=4, heads=2, mlp_width=128, patch=4, size=(16, 16), dimension=8)).train()
        if recompute:
            recompute_blocks(tower)
        size = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tower(torch.randn(8, 3, 16, 16))
        return size

    assert kept(True) < 0.3 * kept(False)
    tower = ConvNetTower(CONV)
    names = set(tower.state_dict())
    assert recompute_blocks(tower) == 2
    assert set(tower.state_dict()) == names


def test_bf16_is_near_and_its_gradients_are_float32(whole: dict[str, torch.Tensor]) -> None:
    made = gradients(precision="bf16", chunk=4)
    assert all(tensor.dtype == torch.float32 for tensor in made.values())
    assert not torch.equal(made["projection.weight"], whole["projection.weight"])
    for name in ("projection.weight", "layers.1.attention.v.lora_b", "losses.1.weight"):
        assert torch.nn.functional.cosine_similarity(made[name].flatten(), whole[name].flatten(), dim=0) > 0.99


def test_batches_of_a_step_are_averaged() -> None:
    torch.manual_seed(0)
    tower = VitTower(VitConfig(width=16, layers=1, heads=2, mlp_width=32, patch=4, size=(16, 16), dimension=8)).train()
    objective = Objective([ContrastiveTerm()], [], dimension=8, temperature=0.1)
    adding = Gradients(WholeTower(tower), objective, ComputeRecipe(), device="cpu", ranks=ALONE)
    tasks = [Task({"pixel_values": torch.randn(4, 3, 16, 16)}, (4,), unit(torch.randn(4, 8)), torch.eye(4), ()) for _ in range(2)]

    def of(*chosen: tuple[Task, float]) -> torch.Tensor:
        tower.zero_grad()
        for task, share in chosen:
            adding.add(task, share=share)
        assert tower.projection.weight.grad is not None
        return tower.projection.weight.grad.clone()

    mean = (of((tasks[0], 1.0)) + of((tasks[1], 1.0))) / 2
    torch.testing.assert_close(of((tasks[0], 0.5), (tasks[1], 0.5)), mean, atol=1e-6, rtol=0)


def _torchrun(*arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    subprocess.run(command, check=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: TID251  (a child's environment)


@pytest.mark.parametrize("chunk", [0, 2])
def test_two_processes_have_the_gradients_of_one(whole: dict[str, torch.Tensor], tmp_path: Path, chunk: int) -> None:
    _torchrun("-m", "tests.training.gradient_case", str(tmp_path / "two.safetensors"), str(chunk))
    assert COUNT % 2  # the two have unequal shares
    _close(load_file(tmp_path / "two.safetensors"), whole, 1e-5)


RECIPE = """
name = "toy"
text = "text"
[spec]
kind = "image"
size = 16
[tower]
start = "vit"
train = "full"
[data]
manifest = "manifest.csv"
held_out = 0.1
[augment]
flip = true
[[losses]]
kind = "contrastive"
[optim]
epochs = 2
batch = 10
rate = 1e-3
[compute]
accumulate = 2
"""


def test_torchrun_trains_as_one_process_does(places: Places, tmp_path: Path) -> None:  # noqa: F811
    config = VitConfig(width=32, layers=2, heads=2, mlp_width=64, patch=4, size=(16, 16), dimension=16)
    save_tower(places.towers / "vit", VitTower(config), config, ImageSpec(size=16))
    (tmp_path / "toy.toml").write_text(RECIPE)
    common = [str(tmp_path / "toy.toml"), "--media", str(places.media), "--towers", str(places.towers)]
    subprocess.run([sys.executable, "-m", "training.cli", *common, "--out", str(tmp_path / "one")], check=True, timeout=600)
    _torchrun("-m", "training.cli", *common, "--out", str(tmp_path / "two"), "--save-every", "2")
    _torchrun("-m", "training.cli", *common, "--out", str(tmp_path / "two"), "--resume")
    one, two = load_tower(tmp_path / "one"), load_tower(tmp_path / "two")
    assert one.provenance["loss"] == pytest.approx(two.provenance["loss"], abs=1e-4)
    assert one.provenance["skipped_items"] == two.provenance["skipped_items"] == 1
    left, right = load_file(tmp_path / "one" / "weights.safetensors"), load_file(tmp_path / "two" / "weights.safetensors")
    assert left.keys() == right.keys()
    start = load_file(places.towers / "vit" / "weights.safetensors")
    moved = max(float((left[name] - start[name]).abs().max()) for name in left)
    assert moved > 1e-3
    assert max(float((left[name] - right[name]).abs().max()) for name in left) < 0.1 * moved


@pytest.mark.parametrize(
    ("tower", "parts", "ranks", "said"),
    [
        ({"start": "conv", "train": ["trunk", "head"]}, {"compute": {"chunk": 4}}, ALONE, r"batch norm.*compute\.chunk"),
        ({"start": "conv", "train": ["trunk"]}, {"compute": {"recompute": True}}, ALONE, r"batch norm.*compute\.recompute"),
        ({"start": "conv", "train": ["trunk", "head"]}, {}, Ranks(0, 2), "batch norm.*several processes"),
        ({"start": "vit", "train": "lora"}, {"augment": {"mixup": 0.2}}, Ranks(0, 2), "mixup"),
        ({"start": "conv", "train": ["head"]}, {"features": {}}, Ranks(0, 2), "kept features"),
        ({"start": "vit", "train": "lora"}, {}, Ranks(0, 99), "no item for each of 99"),
    ],
)
def test_what_would_not_be_the_whole_batch_is_refused(
    places: Places,  # noqa: F811
    tower: dict[str, Any],
    parts: dict[str, Any],
    ranks: Ranks,
    said: str,
) -> None:
    with pytest.raises(RecipeError, match=said):
        train(_recipe(tower, **parts), places, ranks=ranks)
