"""Each benchmark's adapter, over a tiny generated copy of its published layout, measured on a real bundle of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from bindery.bundle import open_bundle
from bindery.embedder import Embedder
from bindery.errors import BinderyError
from tests.toybundle import build_toy_bundle
from tests.training.layouts import MAKERS
from training.evaluation.encoders import BundleEncoder
from training.evaluation.figures import measure
from training.evaluation.layouts import read_samples
from training.evaluation.samples import Sample
from training.evaluation.task import TaskError, known_tasks, read_tasks

LABELS = {
    "esc50": {"dog", "sea_waves", "hand_saw"},
    "vggsound": {"playing harp, plucked", "dog barking"},
    "audioset": {"Speech", "Whoop, shout", "Bell"},
    "kinetics400": {"riding a bike", "juggling balls"},
    "kinetics600": {"riding a bike", "juggling balls"},
    "nyu": {"bathroom", "home office"},
    "sunrgbd": {"bathroom", "computer room"},  # stairs are none of the nineteen
    "llvip": {"person", "background"},
    "flir1": {"person", "car"},
    "flir2": {"person", "car"},
}
COUNTS = {
    "esc50": 6,
    "vggsound": 4,  # of the test split
    "audioset": 3,
    "clotho": 4,
    "audiocaps": 3,
    "kinetics400": 4,
    "kinetics600": 4,
    "msrvtt": 3,
    "msvd": 3,  # of test_list.txt
    "didemo": 3,
    "activitynet": 3,
    "nyu": 4,
    "sunrgbd": 3,
    "llvip": 4,  # one person of a size in each of two pictures, and as many boxes that hold none
    "flir1": 4,
    "flir2": 4,
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    return BundleEncoder(Embedder(open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")), device="cpu"))


def _samples(name: str, root: Path) -> list[Sample]:
    MAKERS[name](root)
    (task,) = read_tasks(name)
    return read_samples(task, root)


def test_every_benchmark_has_a_generated_layout() -> None:
    assert {*MAKERS, "starter"} == set(known_tasks())


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_benchmark_is_measured_from_its_published_layout(name: str, encoder: BundleEncoder, tmp_path: Path) -> None:
    samples = _samples(name, tmp_path)
    (task,) = read_tasks(name)
    assert len(samples) == COUNTS[name]
    assert len({sample.id for sample in samples}) == len(samples)
    assert {label for sample in samples for label in sample.labels} == LABELS.get(name, set())
    measured = measure(encoder, [task], tmp_path)
    assert measured.errors == {}
    figures = {row.figure for row in measured.rows}
    assert {one.figure for one in task.published} <= figures  # or a published figure would stand beside nothing
    if "top" in task.figures:
        assert measured.rows[0].n == len(samples)
    if "pairs" in task.figures:
        assert f"{task.modality} → {task.pair}, R@1" in figures
    if "retrieval" in task.figures:
        assert {"caption → item, R@10", "item → caption, median rank"} <= figures


def test_captions_of_one_item_stay_together(tmp_path: Path) -> None:
    assert _samples("clotho", tmp_path / "c")[0].captions == tuple(f"Caption {c} of sound 0, with a comma." for c in range(1, 6))
    assert _samples("audiocaps", tmp_path / "a")[1].captions == ("a person speaks in take 2", "a person speaks in take 3")
    assert _samples("msvd", tmp_path / "m")[0].captions == ("a bird number 0 is bathing in a sink", "a bird number 1 is bathing in a sink")


def test_sentences_of_a_paragraph_are_one_text(tmp_path: Path) -> None:
    assert _samples("didemo", tmp_path / "d")[0].captions == ("moment 0 begins moment 1 begins",)
    assert _samples("activitynet", tmp_path / "a")[1].captions == ("First 1. Then 1.",)


def test_a_sound_may_have_several_labels(tmp_path: Path) -> None:
    assert _samples("audioset", tmp_path)[0].labels == ("Speech", "Whoop, shout")


def test_depth_of_sun_is_read_in_eighths_of_a_millimetre() -> None:
    (task,) = read_tasks("sunrgbd")
    assert task.options["depth"]["depth_scale"] * (2500 << 3) == pytest.approx(2.5)


def test_boxes_are_cut_out_and_empty_ones_are_the_same_every_time(tmp_path: Path) -> None:
    from PIL import Image

    samples = _samples("llvip", tmp_path)
    with samples[0].media["thermal"]().open() as file, Image.open(file) as cut, Image.open(tmp_path / "infrared/test/190000.jpg") as whole:
        assert cut.size == (30, 60)
        assert cut.tobytes() == whole.crop((10, 20, 40, 80)).tobytes()
    (task,) = read_tasks("llvip")
    again = read_samples(task, tmp_path)
    for one, other in zip(samples, again, strict=True):
        assert one.media["thermal"]().data == other.media["thermal"]().data
    empty = next(sample for sample in samples if sample.labels == ("background",))
    with empty.media["thermal"]().open() as file, Image.open(file) as cut:
        assert cut.size == (30, 60)


def test_a_missing_file_is_one_items_error(encoder: BundleEncoder, tmp_path: Path) -> None:
    MAKERS["esc50"](tmp_path)
    (tmp_path / "audio/1-2-A-2.wav").unlink()
    (tmp_path / "audio/1-3-A-3.wav").write_bytes(b"RIFF junk")
    measured = measure(encoder, read_tasks("esc50"), tmp_path)
    assert (measured.rows[0].n, measured.rows[0].skipped) == (4, 2)
    assert set(measured.errors) == {"audio 2", "audio 3"}


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("esc50", "meta/esc50.csv", "filename,kind\na.wav,dog\n"),
        ("didemo", "test_data.json", "{not json"),
        ("activitynet", "val_1.json", "[1, 2]"),
        ("flir1", "val/thermal_annotations.json", "{}"),
        ("llvip", "Annotations/190000.xml", "<annotation><object><name>person</name></object>"),
        ("msvd", "AllVideoDescriptions.txt", ""),
    ],
)
def test_a_damaged_layout_is_an_error_that_names_it(name: str, file: str, content: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(TaskError) as caught:
        read_samples(read_tasks(name)[0], tmp_path)
    assert not isinstance(caught.value, BinderyError)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_an_empty_directory_is_an_error_that_says_what_is_wanted(name: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=str(tmp_path)):
        read_samples(read_tasks(name)[0], tmp_path)
