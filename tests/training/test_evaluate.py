"""Figures of bundles and towers on the project's own manifests: what the table says is what `classify` and the files say."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import bindery
from bindery.errors import BinderyError
from tests.toybundle import build_toy_bundle
from tests.training.toyset import COLOURS, make_pictures, make_text_tower
from training.evaluation.cli import app
from training.evaluation.encoders import BundleEncoder, open_encoder_of
from training.evaluation.figures import Measured, Row, measure
from training.evaluation.report import as_json, as_markdown
from training.evaluation.task import Published, Task, TaskError, known_tasks, read_tasks
from training.metrics import average_precision, median_rank

TOY = Task(
    name="colours",
    modality="image",
    layout="manifest",
    figures=("top", "retrieval"),
    where={"manifests": {"image": "manifest.csv"}, "source": "toy"},
    names={"red": "crimson"},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bindery.Embedder:
    return bindery.load(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("media")
    make_pictures(directory, each=1, val=6, bad=1)
    return directory


def _measured(model: bindery.Embedder, task: Task, media: Path) -> Measured:
    return measure(BundleEncoder(model), [task], media)


def _row(measured: Measured, figure: str) -> Row:
    return next(row for row in measured.rows if row.figure == figure)


def _with(**where: object) -> Task:
    return TOY.model_copy(update={"where": TOY.where | where})


def test_accuracy_is_what_classify_says(model: bindery.Embedder, media: Path) -> None:
    measured = _measured(model, TOY, media)
    labels = sorted(COLOURS)
    words = ["crimson" if label == "red" else label for label in labels]
    called = np.zeros((4, 4), dtype=int)
    with tarfile.open(media / "train.tar") as tar:
        for number, label in enumerate(labels):
            for index in range(1, 7):
                member = tar.extractfile(f"{label}/{index}.png")
                assert member is not None
                called[number, int(np.argmax(model.classify("image", member.read(), words)[0]))] += 1
    top = _row(measured, "top-1")
    assert (top.hits, top.n, top.among, top.chance, top.skipped) == (called.trace(), 24, 4, 0.25, 0)
    (confusion,) = measured.confusions
    assert confusion.labels == tuple(labels)
    np.testing.assert_array_equal(confusion.counts, called)


def test_unreadable_items_are_left_out_and_counted(model: bindery.Embedder, media: Path) -> None:
    measured = _measured(model, _with(split="train"), media)
    row = _row(measured, "top-1")
    assert (row.n, row.skipped) == (4, 1)
    assert list(measured.errors) == ["image bad/0.png"]


def test_probabilities_and_the_hint_of_the_unknown_are_measured(media: Path, tmp_path: Path) -> None:
    root = build_toy_bundle(tmp_path / "toy")
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["modalities"]["image"]["min_similarity"] = 0.05
    (root / "manifest.json").write_text(json.dumps(manifest))
    model = bindery.load(root)
    measured = _measured(model, TOY.model_copy(update={"figures": ("calibration",)}), media)
    fitted, unfitted = _row(measured, "calibration error"), _row(measured, "calibration error at scale 100")
    assert 0 <= fitted.value <= 1
    assert fitted.value != unfitted.value
    labels = sorted(COLOURS)
    words = model.label_vectors("image", ["crimson" if label == "red" else label for label in labels])
    known = noticed = 0
    with tarfile.open(media / "train.tar") as tar:
        for number, label in enumerate(labels):
            for index in range(1, 7):
                member = tar.extractfile(f"{label}/{index}.png")
                assert member is not None
                cosines = words @ model.embed("image", member.read())[0]
                known += cosines.max() >= 0.05
                noticed += np.delete(cosines, number).max() < 0.05
    assert (_row(measured, "not called unknown, own label offered").hits, 24) == (known, fitted.n)
    assert _row(measured, "called unknown, own label not offered").hits == noticed
    assert "|  |" in as_markdown(as_json(BundleEncoder(model), [TOY], measured))  # nothing is said of chance


def test_paraphrases_find_their_label_among_texts(model: bindery.Embedder, media: Path) -> None:
    said = {"red": ("crimson", "the colour of blood"), "sky": ("blue",)}
    task = Task(name="words", modality="text", layout="phrases", figures=("paraphrase",), where={"phrases": said}, among=("green",))
    cosines = model.similarity(("text", ["crimson", "the colour of blood", "blue"]), ("text", ["green", "red", "sky"]))
    top = _row(_measured(model, task, media), "top-1")
    assert (top.hits, top.n, top.among) == (int((cosines.argmax(axis=1) == [1, 1, 2]).sum()), 3, 3)
    assert _row(_measured(model, task, media), "top-5").value == 1


def test_items_that_share_a_caption_all_count_as_found(model: bindery.Embedder, media: Path) -> None:
    measured = _measured(model, TOY, media)
    found = _row(measured, "caption → item, R@10")
    assert (found.n, found.among) == (8, 24)  # two captions a colour, over 24 pictures
    # Ten of 24 drawn at random hold one of a caption's six with probability 1 - C(18, 10) / C(24, 10)
    assert found.chance == pytest.approx(1 - 43758 / 1961256)
    every = _row(measured, "item → caption, R@10")
    assert (every.hits, every.n) == (24, 24)  # only eight captions: all are within the first ten


def test_a_picture_finds_itself_among_pairs(model: bindery.Embedder, media: Path, tmp_path: Path) -> None:
    lines = (media / "manifest.csv").read_text().splitlines()
    paired = [lines[0] + ",pair_id"] + [f"{line},{number}" for number, line in enumerate(lines[1:]) if ",val," in line]
    (tmp_path / "pairs.csv").write_text("\n".join(paired))
    (tmp_path / "train.tar").write_bytes((media / "train.tar").read_bytes())
    where = {"manifests": {"image": "pairs.csv", "thermal": "pairs.csv"}, "source": "toy"}
    task = Task(name="self", modality="image", pair="thermal", layout="manifest", figures=("pairs",), where=where)
    rows = _measured(model, task, tmp_path).rows
    assert [row.figure for row in rows][:4] == [*(f"image → thermal, R@{k}" for k in (1, 5, 10)), "image → thermal, median rank"]
    assert [row.n for row in rows] == [24] * 8
    assert rows[0].chance == pytest.approx(1 / 24)
    assert rows[3].chance == 12.5


def test_tasks_of_modalities_that_the_bundle_lacks_are_left_out_by_name(model: bindery.Embedder, media: Path) -> None:
    measured = _measured(model, TOY.model_copy(update={"modality": "xray"}), media)
    assert (measured.rows, measured.left_out) == ([], ["colours (no xray)"])


def test_the_table_says_what_the_json_says_beside_what_was_published(model: bindery.Embedder) -> None:
    task = TOY.model_copy(update={"published": (Published(model="Paper", figure="top-1", value=0.9),)})
    row = Row("colours", "image", "top-1", 0.8, (0.4902, 0.9433), 10, 4, 0.25, 1, 8)
    results = as_json(BundleEncoder(model), [task], Measured(rows=[row]))
    assert results["rows"][0]["interval95"] == [0.4902, 0.9433]
    assert results["bundle"]["space"] == model.space
    table = as_markdown(results)
    assert "| colours | image | top-1 | 0.80 | 0.49 – 0.94 | 10 | 4 | 0.25 | Paper: 0.9 |" in table
    assert "colours" not in as_markdown(results, ["top-5"])


def test_torch_towers_are_measured_as_bundles_are(media: Path, tmp_path: Path) -> None:
    import torch

    from bindery.spec import ImageSpec
    from tests.training.toyset import DIMENSION
    from training.towers.package import save_tower
    from training.towers.vit import VitConfig, VitTower

    make_text_tower(tmp_path / "text")
    torch.manual_seed(1)
    config = VitConfig(width=16, layers=1, heads=2, mlp_width=32, patch=8, size=(16, 16), dimension=DIMENSION)
    save_tower(tmp_path / "image", VitTower(config), config, ImageSpec(size=16), logit_scale=10.0, prompts=("a photo of {}",))
    encoder = open_encoder_of(str(tmp_path), device="cpu")
    assert set(encoder.modalities) == {"text", "image"}
    rows = measure(encoder, [TOY], media).rows
    assert {row.figure for row in rows} >= {"top-1", "caption → item, R@1", "item → caption, median rank"}
    assert rows[0].n == 24
    bad = measure(encoder, [_with(split="train")], media)
    assert bad.rows[0].skipped == 1


def test_ranks_and_precision_are_those_of_the_books() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.2, 0.3, 0.4]], dtype=np.float32)
    together = np.array([[False, True, False], [True, True, False]])
    assert median_rank(scores, together) == 2.0  # places 2 and 2
    # Label 0: its two items at places 1 and 3; label 1: its one item at place 2
    ranked = np.array([[0.9, 0.1], [0.8, 0.9], [0.1, 0.5]], dtype=np.float32)
    belongs = np.array([[True, False], [False, False], [True, True]])
    assert average_precision(ranked, belongs) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_the_command_writes_json_the_table_and_pictures(model: bindery.Embedder, media: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "colours"\nmodality = "image"\nlayout = "manifest"\nwhere = { manifests = { image = "manifest.csv" }, source = "toy" }\n'
    )
    arguments = [str(model.bundle.root), str(tmp_path / "mine.toml"), "--data", str(media), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "| colours | image | top-1 |" in result.output
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert {row["figure"] for row in written["rows"]} == {"top-1", "top-5"}
    assert sum(one["n"] for one in written["classes"]) == 24
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"figures.png", "confusion-colours.png"}
    assert (tmp_path / "out/results.md").read_text() in result.output


@pytest.mark.parametrize(("bundle", "task"), [("nowhere", "esc50"), ("starter", "no-such-task"), ("starter", "esc50")])
def test_what_is_not_there_is_said_in_a_line(bundle: str, task: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [bundle, task, "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_task_that_is_none_says_where(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('name = "x"\nmodality = "image"\nlayout = "manifest"\nfigures = ["speed"]\n')
    with pytest.raises(TaskError, match="figures/0"):
        read_tasks(str(tmp_path / "bad.toml"))
    with pytest.raises(TaskError, match="esc50"):
        read_tasks("no-such-task")
    assert len(known_tasks()) == 17
    assert not issubclass(TaskError, BinderyError)
