from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from tests.toybundle import build_toy_bundle
from tests.training.test_trainer import _recipe, places  # noqa: F401  (a fixture)
from tests.training.toyset import COLOURS, DIMENSION, make_pictures
from training import teach
from training.assembly import Places
from training.data.batches import Decoder
from training.data.manifest import Item, read_manifest
from training.distill import Teacher, TeacherError, cosine_loss, load_teacher, relational_loss, similarity_loss
from training.objective import ContrastiveTerm, DistillTerm, Objective
from training.recipe import RecipeError
from training.towers.package import load_tower
from training.towers.tower import unit
from training.trainer import train


def _item(id: str, pair_id: str = "") -> Item:
    return Item(id, Path(), id, None, ("words",), "", "", "", "", "", pair_id)


def _units(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def test_cosine_is_about_the_vectors_and_the_others_about_their_relations() -> None:
    student = _units(5, 8)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
    turned, other = student @ turn, _units(5, 8, seed=2)
    assert cosine_loss(student, student) == pytest.approx(0, abs=1e-6)
    assert cosine_loss(student, -student) == pytest.approx(2)
    assert cosine_loss(student, turned) > 0.1
    for loss in (relational_loss, lambda s, t: similarity_loss(s, t, 0.1)):
        assert loss(student, turned) == pytest.approx(0, abs=1e-6)  # a turned space has the same relations
        assert loss(student, other) > 1e-3


def test_relational_and_kl_are_what_their_words_say() -> None:
    student, teacher, t = _units(3, 4), _units(3, 6, seed=4), 0.2
    mine, theirs = (student @ student.T).numpy(), (teacher @ teacher.T).numpy()
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    assert relational_loss(student, teacher) == pytest.approx(np.mean([(mine[i, j] - theirs[i, j]) ** 2 for i, j in pairs]), rel=1e-5)

    def softmax(row: list[float]) -> np.ndarray:
        return np.exp(np.array(row) / t) / np.exp(np.array(row) / t).sum()

    divergence = 0.0
    for i in range(3):
        p, q = (softmax([cosines[i, j] for j in range(3) if j != i]) for cosines in (theirs, mine))
        divergence += float((p * np.log(p / q)).sum())
    assert similarity_loss(student, teacher, t) == pytest.approx(divergence / 3, rel=1e-4)
    captions = _units(7, 4, seed=5)
    assert similarity_loss(student, student, t, captions) == pytest.approx(0, abs=1e-6)
    assert similarity_loss(student, _units(3, 4, seed=6), t, captions) > 1e-3


def test_a_taggers_scores_are_followed_over_texts() -> None:
    texts = torch.eye(3, 8)
    teacher = Teacher(np.array([[0.8, 0.2, 0.0], [0.0, 0.0, 0.5]]), ["a", "b"], [_item("a"), _item("b")], "id")
    term = DistillTerm(kind="distill", teacher="t", how="scores", texts="names.txt", temperature=0.1)
    objective = Objective([term], [teacher], dimension=8, temperature=0.07, texts={"names.txt": texts})
    student = torch.stack([unit(torch.tensor([[0.3, 0.2, 0.1, 0, 0, 0, 0, 0.5]]))[0], texts[2]])
    divergence = 0.0
    for row, taught in zip(student.numpy(), ([0.8, 0.2], [1.0]), strict=True):
        logits = row[:3] / 0.1
        chosen = np.exp(logits) / np.exp(logits).sum()
        right = chosen[:2] if len(taught) == 2 else chosen[2:]
        divergence += float((np.array(taught) * np.log(np.array(taught) / right)).sum())
    found = objective(student, student, torch.eye(2), ["a", "b"])[0].item()
    assert found == pytest.approx(divergence / 2, rel=1e-4)
    assert "texts" not in str(objective.state_dict().keys())  # the texts come from the recipe, not from a checkpoint


def test_scores_need_as_many_texts() -> None:
    teacher = Teacher(np.eye(2, 5), ["a", "b"], [_item("a"), _item("b")], "id")
    term = DistillTerm(kind="distill", teacher="t.npz", how="scores", texts="names.txt")
    with pytest.raises(ValueError, match="scores of 5 texts"):
        Objective([term], [teacher], dimension=8, temperature=0.07, texts={"names.txt": torch.eye(4, 8)})
    for wrong in ({"how": "scores"}, {"how": "kl", "texts": "names.txt"}):
        with pytest.raises(ValidationError, match="texts is for how"):
            DistillTerm.model_validate({"kind": "distill", "teacher": "t", **wrong})


def test_items_without_a_teachers_vector_do_not_count() -> None:
    teacher = Teacher(np.eye(4, 8) * 3, ["a", "b", "c", "d"], [_item("a"), _item("c"), _item("x")], "id")
    assert (teacher.items, teacher.dimension) == (2, 8)
    known, rows = teacher.of(["x", "c", "a"])
    assert known.tolist() == [1, 2]
    assert torch.equal(rows, 3 * torch.eye(4, 8)[[2, 0]])
    term = DistillTerm(kind="distill", teacher="t.npz")
    objective = Objective([term], [teacher], dimension=8, temperature=0.07)
    media = torch.cat([_units(1, 8), torch.eye(4, 8)[[2, 0]]])
    assert objective(media, media, torch.eye(3), ["x", "c", "a"])[0] == pytest.approx(0, abs=1e-6)
    media.requires_grad_()
    nothing, _ = objective(media, media, torch.eye(3), ["x", "y", "z"])
    nothing.backward()
    assert nothing == 0
    assert media.grad is not None
    assert not media.grad.any()


def test_a_pair_names_a_teacher_of_another_modality() -> None:
    teacher = Teacher(np.eye(2), ["scene 1", "scene 2"], [_item("depth/7", "scene 2")], "pair_id")
    assert teacher.of(["depth/7"])[1].tolist() == [[0, 1]]


def test_the_sum_has_each_loss_times_its_weight() -> None:
    teacher = Teacher(_units(4, 8, seed=3).numpy(), list("abcd"), [_item(id) for id in "abcd"], "id")
    terms = [ContrastiveTerm(weight=0.5), DistillTerm(kind="distill", weight=2, teacher="t", how="relational")]
    terms.append(DistillTerm(kind="distill", teacher="t", how="relational"))
    objective = Objective(terms, [teacher, teacher], dimension=8, temperature=0.07)
    total, parts = objective(_units(4, 8), _units(4, 8, seed=1), torch.eye(4), list("abcd"))
    assert parts.keys() == {"contrastive", "relational", "relational.2"}
    assert total.item() == pytest.approx(0.5 * parts["contrastive"] + 3 * parts["relational"], rel=1e-5)


def test_a_teacher_of_another_length_needs_a_projection_or_a_loss_without_lengths() -> None:
    teacher = Teacher(np.eye(2, 5), ["a", "b"], [_item("a"), _item("b")], "id")
    through = Objective([DistillTerm(kind="distill", teacher="t")], [teacher], dimension=8, temperature=0.07)
    assert [name for name, _ in through.named_trained()] == ["logit_scale", "losses.0.weight"]
    assert through(_units(2, 8), _units(2, 8), torch.eye(2), ["a", "b"])[0] > 0
    relations = Objective([DistillTerm(kind="distill", teacher="t", how="kl")], [teacher], dimension=8, temperature=0.07)
    assert [name for name, _ in relations.named_trained()] == ["logit_scale"]
    with pytest.raises(ValueError, match="5 values and the captions of 8"):
        Objective([DistillTerm(kind="distill", teacher="t", how="kl", against="captions")], [teacher], dimension=8, temperature=0.07)


def test_files_of_a_teacher(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2) + 1
    np.savez(tmp_path / "t.npz", ids=np.array(["a", "b", "c"]), vectors=vectors)
    np.save(tmp_path / "t.npy", vectors)
    (tmp_path / "t.ids.txt").write_text("a\nb\nc\n")
    items = [_item("c"), _item("a")]
    kept, mapped = load_teacher(tmp_path / "t.npz", items), load_teacher(tmp_path / "t.npy", items)
    assert torch.equal(kept.of(["a", "c"])[1], mapped.of(["a", "c"])[1])
    (tmp_path / "short.txt").write_text("a\nb\n")
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    np.savez(tmp_path / "bare.npz", vectors=vectors)
    (tmp_path / "no.npy").write_bytes(b"no array")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"path": tmp_path / "t.npy", "ids": tmp_path / "short.txt"}, r"\(3, 2\) for 2 ids"),
        ({"path": tmp_path / "t.npy", "ids": tmp_path / "twice.txt"}, "twice"),
        ({"path": tmp_path / "bare.npz"}, "no array ids"),
        ({"path": tmp_path / "no.npy"}, r"no\.npy cannot be read"),
        ({"path": tmp_path / "absent.npz"}, r"absent\.npz cannot be read"),
        ({"path": tmp_path / "t.npz", "key": "pair_id"}, "none of the items, by their pair_id"),
    ]
    for arguments, said in wrong:
        with pytest.raises(TeacherError, match=said):
            load_teacher(items=items, **arguments)


@pytest.mark.parametrize("how", ["cosine", "relational", "kl"])
def test_a_tower_follows_its_teacher(places: Places, how: str) -> None:  # noqa: F811
    items = read_manifest(places.media / "manifest.csv", split="train")
    corners = dict(zip([*COLOURS, "bad"], _units(5, 6, seed=7).numpy(), strict=True))  # a space of its own: a corner for each colour
    np.savez(places.media / "t.npz", ids=np.array([item.id for item in items]), vectors=np.stack([corners[item.label] for item in items]))
    losses = [{"kind": "contrastive", "weight": 0.1}, {"kind": "distill", "how": how, "teacher": "t.npz", "temperature": 0.2}]
    recipe = _recipe({"start": "vit", "train": "full"}, losses=losses, optim={"epochs": 10, "batch": 16, "rate": 3e-3})

    def distance(package: Path) -> float:
        package_ = load_tower(package)
        decoder = Decoder(items[::6], package_.spec)
        pixels = [tensors["pixel_values"] for i in range(len(decoder.items)) if (tensors := decoder.tensors(i)) is not None]
        with torch.no_grad():
            student = package_.module()(torch.from_numpy(np.stack(pixels)))
        teacher = torch.from_numpy(np.stack([corners[item.label] for item in decoder.items if item.id not in decoder.skipped]))
        return float(relational_loss(student, teacher))

    trained = train(recipe, places)
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    assert distance(trained.package) < 0.5 * distance(places.towers / "vit")
    package = load_tower(trained.package)
    (teacher,) = package.provenance["teachers"]
    assert (teacher["file"], teacher["how"], len(teacher["sha256"])) == ("t.npz", how, 64)
    assert package.module().dimension == DIMENSION  # no trace of a projection


def test_a_recipe_with_a_teacher_that_is_not_there_or_cannot_be_followed(places: Places) -> None:  # noqa: F811
    losses = [{"kind": "distill", "teacher": "absent.npz"}]
    with pytest.raises(RecipeError, match=r"absent\.npz cannot be read"):
        train(_recipe({"start": "vit", "train": "full"}, losses=losses), places)
    with pytest.raises(ValueError, match="mixed items"):
        _recipe({"start": "vit", "train": "full"}, losses=losses, augment={"mixup": 0.2})


def test_a_bundle_teaches(tmp_path: Path) -> None:
    bundle = build_toy_bundle(tmp_path / "toy")
    manifest = make_pictures(tmp_path / "media", each=2, bad=1)
    arguments = ["--bundle", str(bundle), "--modality", "image", "--manifest", str(manifest), "--out", str(tmp_path / "t.npz")]
    result = CliRunner().invoke(teach.app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    teacher = load_teacher(tmp_path / "t.npz", read_manifest(manifest))
    assert (teacher.items, teacher.dimension) == (8, 8)
    result = CliRunner().invoke(teach.app, [*arguments, "--key", "pair_id"])
    assert result.exit_code == 2
    assert "no readable item with a pair_id" in " ".join(result.output.split())


def test_a_tower_of_a_directory_of_packages_teaches_and_its_lesson_may_lie_there(places: Places) -> None:  # noqa: F811
    manifest, lesson = places.media / "manifest.csv", places.towers / "vit" / "lesson.npz"
    arguments = ["--bundle", str(places.towers), "--manifest", str(manifest), "--device", "cpu"]
    result = CliRunner().invoke(teach.app, [*arguments, "--modality", "vit", "--out", str(lesson)])
    assert result.exit_code == 0, result.output
    recipe = _recipe({"start": "vit", "train": "full"}, losses=[{"kind": "distill", "teacher": "vit/lesson.npz"}])
    assert train(recipe, places).losses[0] < 1e-3  # it begins as its own teacher
    result = CliRunner().invoke(teach.app, [*arguments, "--modality", "nose", "--out", str(lesson)])
    assert result.exit_code == 2
    assert "has no nose" in " ".join(result.output.split())
