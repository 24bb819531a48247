"""Prepared rows without words, a teacher's features and tags, texts that nothing is said of: distillation before captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bindery.spec import ImageSpec
from tests.training.toyset import DIMENSION, make_text_tower
from training.assembly import Places
from training.data.batches import Decoder
from training.data.manifest import Item, ManifestError, read_manifest
from training.distill import Teacher, cosine_loss, squared_loss, tags_loss
from training.dry_run import dry_run
from training.feed import balanced
from training.losses import contrastive_loss, positives
from training.objective import ContrastiveTerm, DistillTerm, Objective
from training.recipe import Recipe
from training.starter.weights import import_listener
from training.text import PackageText
from training.towers.convnet import ConvNetConfig, ConvNetTower, Stage
from training.towers.package import load_tower
from training.towers.tower import unit
from training.trainer import Saving, train

WINDOWS = ConvNetConfig(
    size=(8, 8),
    channels=4,
    apart=True,
    block="separable",
    stem=4,
    stages=(Stage(kernel=3, stride=2, channels=8, blocks=2),),
    features=12,
    norm=False,
    dimension=DIMENSION,
)
COUNT = 48


def _pool(folder: Path) -> None:
    """Patches of two brightnesses; every second one without words. The teacher's feature and tags follow from the brightness."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    bright = np.arange(COUNT) % 4 < 2
    patches = rng.normal(0, 0.3, (COUNT, 1, 8, 8)) + np.where(bright, 1.0, -1.0)[:, None, None, None]
    np.save(folder / "patches.npy", patches.astype(np.float16))
    np.save(folder / "features.npy", np.where(bright[:, None], np.eye(2, 12)[0], np.eye(2, 12)[1]).astype(np.float16))
    np.save(folder / "scores.npy", np.stack([bright, ~bright, bright], axis=1).astype(np.float16))
    (folder / "ids.txt").write_text("".join(f"{row}\n" for row in range(COUNT)), encoding="utf-8")
    (folder / "others.txt").write_text("a photo of blue\na picture of red\ncolour\n", encoding="utf-8")
    said = ["white" if one else "red" for one in bright]
    lines = [f"{row},patches.npy,{row},{said[row] if row % 2 else ''},train" for row in range(COUNT)]
    (folder / "manifest.csv").write_text("\n".join(["id,shard,path,label,split", *lines]) + "\n", encoding="utf-8")


def _recipe(*losses: dict[str, Any], epochs: float = 20) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "lessons",
            "text": "text",
            "spec": ImageSpec(size=8),
            "tower": {"config": WINDOWS, "train": "all"},
            "data": {"manifest": "manifest.csv", "templates": ["a photo of {}"], "wordless": 0.5},
            "loss": {"positives": "same_label"},
            "losses": list(losses),
            "optim": {"epochs": epochs, "batch": 16, "rate": 1e-2},
        }
    )


FEATURES = {"kind": "distill", "how": "squared", "of": "features", "teacher": "features.npy", "ids": "ids.txt"}
TAGS = {"kind": "distill", "how": "tags", "of": "features", "teacher": "scores.npy", "ids": "ids.txt", "weight": 0.2}
CAPTIONS = {"kind": "contrastive", "negatives": "others.txt", "spared": 1}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    make_text_tower(tmp_path / "towers" / "text")
    _pool(tmp_path / "media")
    return Places(tmp_path / "media", tmp_path / "towers", tmp_path / "out")


def test_a_tower_learns_features_and_tags_first_and_words_beside_them(places: Places) -> None:
    both = train(_recipe(FEATURES, TAGS, CAPTIONS), places)
    assert both.items == COUNT
    assert both.losses[-1] < both.losses[0] / 2
    text = dry_run(_recipe(FEATURES, TAGS, CAPTIONS), places)
    assert set(text.loss) == {"squared", "tags", "contrastive"}
    assert text.shapes["vectors"] == (16, DIMENSION)


def test_what_was_tagged_first_speaks_in_text_vectors_afterwards(places: Places) -> None:
    """The layer of logits stays beside the package, and makes a tower that knows the classes by name before any caption."""
    trained = train(_recipe(FEATURES, TAGS, epochs=60), places)
    (places.media / "names.txt").write_text("white\nred\nquiet\n", encoding="utf-8")  # the third is true of what is white, too
    text = places.towers / "text"
    listener = import_listener(
        places.out / "listener", trained.package, text, places.media / "names.txt", silent="quiet", layer="1", best=1
    )
    patches = torch.from_numpy(np.load(places.media / "patches.npy").astype(np.float32))  # (48, 1, 8, 8)
    with torch.no_grad():
        vectors = load_tower(listener).module()(patches.unflatten(0, (12, 4))[:, :, 0])  # each of four windows, two of each brightness
    white, red = PackageText(load_tower(text)).vectors(["white", "red"])
    sharpest = torch.stack([(vectors @ white), (vectors @ red)]).max(dim=0).values
    assert sharpest.min() > 0.99  # of one class alone, and that one of the two that may speak


def test_part_of_an_epoch_is_a_run(places: Places) -> None:
    short = train(_recipe(FEATURES, epochs=1.5), places)
    assert (short.steps, len(short.losses)) == (4, 2)  # three steps an epoch
    whole = train(_recipe(FEATURES, epochs=3), replace(places, out=places.out / "whole"), saving=Saving(every=8))
    begun = _recipe(FEATURES, epochs=8 / 3)
    cut = train(begun.model_copy(update={"optim": begun.optim.model_copy(update={"fall": 3})}), replace(places, out=places.out / "cut"))
    assert whole.steps == 9
    state = torch.load(places.out / "whole/checkpoints/step-00000008.pt", weights_only=True)["loop"]["tower"]
    ended = load_tower(cut.package).module().state_dict()
    assert all(torch.equal(state[name], ended[name]) for name in ended)  # the longer run's weights at that step


def test_rows_without_words_need_a_recipe_that_expects_them(places: Places) -> None:
    manifest = places.media / "manifest.csv"
    with pytest.raises(ManifestError, match="neither captions nor a label"):
        read_manifest(manifest)
    items = read_manifest(manifest, wordless=True)
    tensors = Decoder(items, ImageSpec(size=8)).tensors(3)
    assert tensors is not None
    assert tensors["pixel_values"].dtype == np.float32
    assert np.array_equal(tensors["pixel_values"], np.load(places.media / "patches.npy")[3])
    gone = Item("x", places.media, "48", "patches.npy", (), "", "", "", "", "", "")
    with pytest.raises(ManifestError, match="row 48"):
        Decoder([gone], ImageSpec(size=8)).tensors(0)


def test_shares_of_the_draws() -> None:
    items = [_item(label) for label in ["a"] * 16 + ["b"] * 4 + [""] * 5]
    drawn = balanced(items, "root", 0.4)
    total = sum(item.weight for item in drawn)
    share = {label: sum(item.weight for item in drawn if item.label == label) / total for label in ("a", "b", "")}
    assert share == pytest.approx({"a": 0.4, "b": 0.2, "": 0.4})  # the roots of 16 and 4 are as 2 to 1
    assert balanced(items, "items", None) == items
    assert balanced(items, "items", 0.0) == items


def test_items_without_words_are_no_negatives() -> None:
    together = positives(["x", "", "y"], ["l", "", "l"], "same_label")
    assert together.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    media, text = _units(3), _units(3, seed=1)
    objective = Objective([ContrastiveTerm()], [], dimension=8, temperature=0.1)
    loss, _ = objective(media, text, together, ["1", "2", "3"])
    kept = torch.tensor([0, 2])
    assert loss.item() == pytest.approx(contrastive_loss(media[kept], text[kept], objective.scale(), torch.ones(2, 2)).item(), abs=1e-6)
    nothing, _ = objective(media.requires_grad_(), text, torch.zeros(3, 3), ["1", "2", "3"])
    nothing.backward()
    assert nothing == 0


def test_negatives_count_but_for_those_near_the_caption() -> None:
    media, text, others = _units(2), _units(2, seed=1), _units(5, seed=2)
    objective = Objective([ContrastiveTerm(negatives="n", spared=2)], [], dimension=8, temperature=0.1, texts={"n": others})
    loss, _ = objective(media, text, torch.eye(2), ["1", "2"])
    expected = torch.zeros(())
    for row in range(2):
        far = (text[row] @ others.T).argsort()[:3]
        against = torch.cat([text, others[far]])
        expected = expected - (10 * media[row] @ against.T).log_softmax(0)[row] / 2
        expected = expected - (10 * text[row] @ media.T).log_softmax(0)[row] / 2
    assert loss.item() == pytest.approx(expected.item() / 2, abs=1e-5)
    loss.backward()
    assert torch.isfinite(objective.scale.log.grad)


def test_losses_of_features_tags_and_sure_vectors() -> None:
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 2.0]])
    assert squared_loss(student, teacher) == pytest.approx(0.5 / 4)
    assert tags_loss(torch.zeros(2, 3), torch.ones(2, 3)) == pytest.approx(3 * np.log(2))
    here, there = torch.eye(2), torch.eye(2)[[1, 0]]
    assert cosine_loss(here, there, torch.tensor([0.0, 0.5])) == pytest.approx(0.25)
    sure = Teacher(np.array([[0.5, 0.0], [0.0, 0.25]]), ["a", "b"], [_item("", "a"), _item("", "b")], "id")
    term = DistillTerm(kind="distill", teacher="t.npz", sure=True)
    loss, _ = Objective([term], [sure], dimension=2, temperature=0.07)(there, there, torch.eye(2), ["a", "b"])
    assert loss.item() == pytest.approx((0.5 + 0.25) / 2)


def test_features_are_followed_only_where_that_has_a_meaning() -> None:
    for wrong in ({"how": "kl", "of": "features"}, {"how": "squared", "sure": True}):
        with pytest.raises(ValidationError):
            DistillTerm.model_validate({"kind": "distill", "teacher": "t", **wrong})
    teacher = Teacher(np.eye(1, 4), ["a"], [_item("", "a")], "id")
    with pytest.raises(ValueError, match="features"):
        Objective([DistillTerm(kind="distill", teacher="t", of="features")], [teacher], dimension=4, temperature=0.07)


def test_windows_apart_are_pictures_whose_mean_the_head_sees() -> None:
    tower = ConvNetTower(WINDOWS).eval()
    windows = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        each = torch.stack([tower.features(windows[:, place : place + 1])[:, 0] for place in range(4)], dim=1)
        torch.testing.assert_close(tower(windows), unit(tower.vector(each.mean(dim=1, keepdim=True))))
    with pytest.raises(ValueError, match="pixel_values has shape"):
        tower.features(torch.zeros(1, 4, 8, 9))


def _units(count: int, *, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)))


def _item(label: str, id: str = "x") -> Item:
    return Item(id, Path(), id, None, (), label, "", "", "", "", "")
