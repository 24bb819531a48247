from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from bindery.embedder import load
from tests import longmedia
from tests.cli.conftest import Run

EXAMPLES = Path(__file__).parents[2] / "examples"
DOG, RAIN = EXAMPLES / "dog.wav", EXAMPLES / "rain.ogg"


def test_the_vectors_are_those_of_the_python_api(run: Run, toy: Path, tmp_path: Path) -> None:
    wanted = load(toy, threads=1).embed("audio", [DOG, RAIN])
    assert run("embed", "--modality", "audio", DOG, RAIN, "--out", tmp_path / "v.npy").code == 0
    assert np.array_equal(np.load(tmp_path / "v.npy"), wanted)
    piped = run("embed", "--modality", "audio", DOG, RAIN, "--format", "npy")
    assert np.array_equal(np.load(io.BytesIO(piped.out)), wanted)
    document = run("embed", "--modality", "audio", DOG, RAIN).json
    assert np.array_equal(np.array([item["embedding"] for item in document["items"]], dtype=np.float32), wanted)
    assert (document["model"], document["modality"], document["dimension"]) == ("toy", "audio", 8)


def test_options_reach_the_decoder(run: Run, toy: Path) -> None:
    wanted = load(toy, threads=1).embed("audio", [DOG], start=0.5, end=1.0)
    given = run("embed", "--modality", "audio", DOG, "--option", "start=0.5", "--option", "end=1.0").json
    assert np.array_equal(np.array(given["items"][0]["embedding"], dtype=np.float32), wanted[0])


def test_parquet_without_pyarrow_is_refused_before_any_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for command in (("--modality", "audio", DOG, "--out", tmp_path / "v.parquet"), (EXAMPLES, "--out", tmp_path / "shards")):
        done = run("embed", *command)
        assert done.code == 1
        assert done.err == "error[invalid_parameter]: Parquet needs pyarrow, which is not installed: pip install 'bindery[parquet]'\n"
    assert not list(tmp_path.glob("[vs]*"))


def test_an_input_that_fails_is_told_and_the_others_are_kept(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "v.parquet"
    done = run("embed", "--modality", "audio", DOG, tmp_path / "none.wav", RAIN, "--out", out)
    assert done.code == 3
    assert done.err.startswith("error[unreadable_media]: none.wav")
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["error"] for row in rows] == [None, "unreadable_media", None]
    assert [row["embedding"] is None for row in rows] == [False, True, False]
    document = run("embed", "--modality", "audio", DOG, tmp_path / "none.wav").json
    assert document["items"][1]["error"]["code"] == "unreadable_media"


def test_npy_is_all_or_nothing(run: Run, tmp_path: Path) -> None:
    done = run("embed", "--modality", "audio", DOG, tmp_path / "none.wav", "--out", tmp_path / "v.npy")
    assert done.code == 1
    assert "nothing was written" in done.err
    assert not (tmp_path / "v.npy").exists()


def test_all_inputs_failing_is_a_failure(run: Run, tmp_path: Path) -> None:
    assert run("embed", "--modality", "audio", tmp_path / "none.wav").code == 1


def test_a_place_that_cannot_be_written_is_told(run: Run, tmp_path: Path) -> None:
    done = run("embed", "--modality", "text", "a", "--out", tmp_path / "no" / "v.npy")
    assert done.code == 1
    assert "cannot be written" in done.err


@pytest.mark.parametrize("top_k", [1, 3])
def test_classify_shows_the_best_labels_first(run: Run, toy: Path, tmp_path: Path, top_k: int) -> None:
    labels = ["dog barking", "rain", "an accordion"]
    wanted = load(toy, threads=1).classify("audio", [DOG], labels)[0]
    options = [part for label in labels for part in ("--label", label)]
    done = run("classify", "--modality", "audio", DOG, tmp_path / "none.wav", *options, "--top-k", str(top_k), "--format", "json")
    assert done.code == 3
    first, second = done.json["items"]
    best = sorted(zip(labels, wanted.tolist(), strict=True), key=lambda pair: -pair[1])[:top_k]
    assert [(each["label"], pytest.approx(each["probability"])) for each in first["labels"]] == best
    assert second["error"]["code"] == "unreadable_media"
    shown = run("classify", "--modality", "audio", DOG, *options)
    assert best[0][0].encode() in shown.out
    strange = bool(load(toy, threads=1).unknown("audio", [DOG], labels)[0])
    assert (first["unknown"], "probably none of these labels" in shown.err) == (strange, strange)


def test_clips_are_written_with_their_times(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tones.wav").write_bytes(longmedia.wav())
    options = ("--option", "clip_seconds=20", "--option", "clip_stride=20", "--option", "pool=mean")
    told = run("embed", "--modality", "audio", tmp_path / "tones.wav", *options)
    (item,) = told.json["items"]
    assert told.code == 0
    assert [(clip["start"], clip["end"]) for clip in item["clips"]] == [(0, 20), (20, 40), (40, 60)]
    assert len(item["clips"][0]["embedding"]) == len(item["embedding"]) == told.json["dimension"]
    assert run("embed", "--modality", "audio", tmp_path / "tones.wav", *options, "--format", "npy").code == 1
    (tmp_path / "colors.mp4").write_bytes(longmedia.mp4(longmedia.COLORS[:2], 3))
    scenes = run("embed", "--modality", "video", tmp_path / "colors.mp4", "--option", "clip_by=scenes")
    assert [(clip["start"], clip["end"]) for clip in scenes.json["items"][0]["clips"]] == [(0, 3), (3, 6)]
    assert run("embed", "--modality", "audio", tmp_path / "nothing.wav", *options).code == 1


def test_a_source_becomes_shards_that_a_collection_imports(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("dog.wav", "elephant.jpg", "bathroom-depth.png"):
        shutil.copy(EXAMPLES / name, folder)
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    done = run("embed", folder, "--out", tmp_path / "shards", "--rule", "*-depth.png=depth")
    assert (done.code, done.out) == (3, b"4 listed = 3 done + 0 skipped + 1 failed\n")
    assert "error[unreadable_media]: bad.jpg" in done.err
    again = run("embed", folder, "--out", tmp_path / "shards", "--rule", "*-depth.png=depth", "--option", "clip_seconds=10")
    assert again.out == b"4 listed = 0 done + 3 skipped + 1 failed\n"
    assert run("collection", "import", "shelf", tmp_path / "shards", "--create").code == 0
    assert run("search", "--collection", "shelf", "--item", "dog.wav", "--format", "json").code == 0
    for name in ("dog.wav", "elephant.jpg"):
        (folder / name).unlink()
    gone = ("embed", folder, "--out", tmp_path / "shards", "--rule", "*-depth.png=depth", "--prune")
    assert "force it if" in run(*gone).err
    assert run(*gone, "--force").code == 3
    assert run("embed", folder, "--out", tmp_path / "named", "--field", "place=keyword", "--rule", "*-depth.png=depth").code == 3
    assert json.loads((tmp_path / "named" / ".bindery" / "definition.json").read_text())["fields"] == {"place": "keyword"}
    assert run("embed", folder, "--out", tmp_path / "odd", "--field", "place=colour").code == 1
    assert run("embed", folder).code == 2
    assert run("embed", folder, folder, "--out", tmp_path / "other").code == 2
