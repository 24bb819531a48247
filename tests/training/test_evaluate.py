from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import bindery
from tests.toybundle import build_toy_bundle
from tests.training.toyset import COLOURS, make_pictures
from training.evaluate import LabelSet, Pairs, Row, Tasks, app, as_json, as_markdown, evaluate
from training.metrics import Share

TOY = LabelSet(name="colours", modality="image", manifest="manifest.csv", source="toy", names={"red": "crimson"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bindery.Embedder:
    return bindery.load(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("media")
    make_pictures(directory, each=1, val=6, bad=1)
    return directory


def _row(rows: list[Row], figure: str) -> Row:
    return next(row for row in rows if row.figure == figure)


def test_accuracy_is_what_classify_says(model: bindery.Embedder, media: Path) -> None:
    rows = evaluate(model, Tasks(label_sets=(TOY,)), media)
    labels = sorted(COLOURS)
    words = ["crimson" if label == "red" else label for label in labels]
    right = 0
    with tarfile.open(media / "train.tar") as tar:
        for number, label in enumerate(labels):
            for index in range(1, 7):
                member = tar.extractfile(f"{label}/{index}.png")
                assert member is not None
                right += int(np.argmax(model.classify("image", member.read(), words)[0]) == number)
    top = _row(rows, "top-1")
    assert top.share == Share(right, 24)
    assert (top.among, top.chance, top.skipped) == (4, 0.25, 0)


def test_unreadable_items_are_left_out_and_counted(model: bindery.Embedder, media: Path) -> None:
    row = _row(evaluate(model, Tasks(label_sets=(TOY,)), media, split="train"), "top-1")
    assert (row.share.n, row.skipped) == (4, 1)


def test_items_that_share_a_caption_all_count_as_found(model: bindery.Embedder, media: Path) -> None:
    rows = evaluate(model, Tasks(label_sets=(TOY,)), media)
    found = _row(rows, "caption → item, R@10")
    assert (found.share.n, found.among) == (8, 24)  # two captions a colour, over 24 pictures
    # Ten of 24 drawn at random hold one of a caption's six with probability 1 - C(18, 10) / C(24, 10)
    assert found.chance == pytest.approx(1 - 43758 / 1961256)
    assert _row(rows, "item → caption, R@10").share == Share(24, 24)  # only eight captions: all are within the first ten


def test_a_picture_finds_itself_among_pairs(model: bindery.Embedder, media: Path, tmp_path: Path) -> None:
    lines = (media / "manifest.csv").read_text().splitlines()
    paired = [lines[0] + ",pair_id"] + [f"{line},{number}" for number, line in enumerate(lines[1:]) if ",val," in line]
    (tmp_path / "pairs.csv").write_text("\n".join(paired))
    (tmp_path / "train.tar").write_bytes((media / "train.tar").read_bytes())
    pairs = Pairs(name="self", modality="image", manifest="pairs.csv", to_modality="image", to_manifest="pairs.csv", source="toy")
    rows = evaluate(model, Tasks(pairs=(pairs,)), tmp_path)
    assert [(row.figure, row.share) for row in rows] == [("image → image, R@1", Share(24, 24)), ("image → image, R@10", Share(24, 24))]
    assert rows[0].chance == pytest.approx(1 / 24)


def test_tasks_of_modalities_that_the_bundle_lacks_are_left_out(model: bindery.Embedder, media: Path) -> None:
    assert evaluate(model, Tasks(label_sets=(TOY.model_copy(update={"modality": "xray"}),)), media) == []


def test_the_table_says_what_the_json_says(model: bindery.Embedder) -> None:
    results = as_json(model, [Row("colours", "image", "top-1", Share(8, 10), 4, 0.25, 1)], "val")
    assert results["rows"][0]["interval95"] == [0.4902, 0.9433]
    assert results["bundle"]["space"] == model.space
    table = as_markdown(results)
    assert "| colours | image | top-1 | 0.80 | 0.49 – 0.94 | 10 | 4 | 0.25 |" in table
    assert "colours" not in as_markdown(results, ["top-5"])


def test_the_command_writes_json_and_prints_the_table(model: bindery.Embedder, media: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.toml").write_text(
        '[[label_sets]]\nname = "colours"\nmodality = "image"\nmanifest = "manifest.csv"\nsource = "toy"\n'
    )
    arguments = ["--bundle", str(model.bundle.root), "--media", str(media), "--tasks", str(tmp_path / "tasks.toml")]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "results.json")])
    assert result.exit_code == 0, result.output
    assert "| colours | image | top-1 |" in result.output
    assert {row["figure"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]} >= {"top-1", "top-5"}


def test_a_bundle_or_manifest_that_is_not_there_is_said_in_a_line(media: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--bundle", str(tmp_path), "--media", str(media)])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
