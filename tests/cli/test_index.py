from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bindery.collections import Store
from bindery.embedder import load
from tests import longmedia
from tests.cli.conftest import Run

EXAMPLES = Path(__file__).parents[2] / "examples"


def _fill(folder: Path) -> Path:
    (folder / "depth").mkdir(parents=True)
    for name in ("dog.wav", "rain.ogg", "elephant.jpg"):
        shutil.copy(EXAMPLES / name, folder)
    shutil.copy(EXAMPLES / "bathroom-depth.png", folder / "depth" / "room.png")
    (folder / "note.txt").write_text("a dog barking in the rain")
    return folder


def test_a_folder_goes_in_once_and_again_only_where_it_changed(run: Run, toy: Path, tmp_path: Path) -> None:
    folder = _fill(tmp_path / "media")
    index = ("index", folder, "--collection", "shelf", "--rule", "depth/**=depth")
    first = run(*index)
    assert (first.code, first.out) == (0, b"5 listed = 5 done + 0 skipped + 0 failed\n")
    assert run(*index).out == b"5 listed = 0 done + 5 skipped + 0 failed\n"

    with Store(tmp_path / "data") as store:
        shelf = store.get("shelf")
        assert shelf.state().counts == {"audio": 2, "depth": 1, "image": 1, "text": 1}
        model = load(toy, threads=1)
        for id, vector in {
            "depth/room.png": model.embed("depth", folder / "depth/room.png")[0],
            "note.txt": model.embed("text", "a dog barking in the rain")[0],
        }.items():
            assert np.allclose(shelf.get(id).vector, vector, atol=1e-3)
        assert shelf.get("dog.wav").uri == str(folder / "dog.wav")

    (folder / "note.txt").write_text("an accordion")
    shutil.copy(EXAMPLES / "accordion.jpg", folder / "new.jpg")
    assert run(*index).out == b"6 listed = 2 done + 4 skipped + 0 failed\n"
    found = run("search", "--collection", "shelf", "an accordion", "--top-k", "1", "--format", "json").json
    assert [hit["id"] for hit in found["hits"]] == ["note.txt"]


def test_bad_files_are_told_counted_and_tried_again(run: Run, tmp_path: Path) -> None:
    folder = _fill(tmp_path / "media")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "other.zip").write_bytes(b"PK")
    for summary in (b"8 listed = 5 done + 0 skipped + 3 failed\n", b"8 listed = 0 done + 5 skipped + 3 failed\n"):
        done = run("index", folder, "--collection", "shelf")
        assert done.code == 3
        assert done.out == summary
        for told in (
            "error[unreadable_media]: bad.jpg",
            "error[empty_media]: empty.wav",
            "error[unreadable_media]: latin.txt",
            "left out 1 file of no modality of the bundle, or of several (other.zip)",
        ):
            assert told in done.err


def test_exit_codes_tell_some_all_and_too_many_failures_apart(run: Run, tmp_path: Path) -> None:
    folder = _fill(tmp_path / "media")
    (folder / "empty.wav").write_bytes(b"")
    assert run("index", folder, "--collection", "shelf", "--max-error-rate", "0.5").code == 3
    gone = run("index", folder, "--collection", "shelf", "--max-error-rate", "0.1")
    assert gone.code == 1
    assert gone.err.splitlines()[-1].startswith("error[too_many_failures]: 1 of 6 files failed; at most 10.0% may")
    only = run("index", folder, "--collection", "shelf", "--retry-failed")
    assert (only.code, only.out) == (1, b"1 listed = 0 done + 0 skipped + 1 failed\n")
    (folder / "empty.wav").write_bytes((folder / "dog.wav").read_bytes())
    mended = run("index", folder, "--collection", "shelf", "--retry-failed", "--max-error-rate", "0")
    assert (mended.code, mended.out) == (0, b"1 listed = 1 done + 0 skipped + 0 failed\n")
    assert run("index", folder / "gone", "--collection", "shelf").code == 1
    assert run("index", folder, "--collection", "shelf", "--max-error-rate", "2").code == 2


def test_a_rule_for_an_unknown_modality_stops_before_any_work(run: Run, tmp_path: Path) -> None:
    done = run("index", _fill(tmp_path / "media"), "--collection", "shelf", "--rule", "*.jpg=smell")
    assert done.code == 1
    assert done.err.startswith("error[unknown_modality]")
    with Store(tmp_path / "data") as store:
        assert "shelf" not in store


def test_ctrl_c_keeps_what_is_done(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    for number in range(600):  # videos, because each takes a while: the signal must come before the last one is done
        free = struct.pack(">I4sI", 12, b"free", number)  # a box of no meaning, so that no file is another's copy
        (folder / f"{number:04}.mp4").write_bytes((EXAMPLES / "signing.mp4").read_bytes() + free)
    command = [sys.executable, "-m", "bindery.cli.main", "index", str(folder), "--collection", "c", "--bundle", str(toy)]
    monkeypatch.setenv("BINDERY_THREADS", "1")
    child = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "data")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests run in the background, it is ignored
    )
    with Store(tmp_path / "data") as store:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and not ("c" in store and len(store.get("c"))):
            time.sleep(0.005)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=30)
        kept = len(store.get("c"))
    assert child.returncode == 130
    assert "run it again for the rest" in told
    assert f"= {kept} done" in told
    assert 0 < kept < 600


def test_search_by_words_file_and_item(run: Run, tmp_path: Path) -> None:
    run("index", _fill(tmp_path / "media"), "--collection", "shelf", "--field", "place=keyword")
    ask = ("search", "--collection", "shelf", "--format", "json")
    assert run(*ask, "--file", EXAMPLES / "dog.wav", "--modality", "audio").json["hits"][0]["id"] == "dog.wav"
    assert "dog.wav" not in [hit["id"] for hit in run(*ask, "--item", "dog.wav").json["hits"]]
    assert {hit["modality"] for hit in run(*ask, "words", "--among", "audio").json["hits"]} == {"audio"}
    assert len(run(*ask, "words", "--filter", '{"id": {"prefix": "depth/"}}').json["hits"]) == 1
    assert run(*ask, "words", "--centred").json["plan"]["centred"] is True
    alone = run(*ask, "--file", EXAMPLES / "dog.wav", "--modality", "audio").json["hits"]
    parts = f'[{{"file": "{EXAMPLES / "dog.wav"}", "modality": "audio"}}, {{"text": "words", "weight": 0}}]'
    mixed = run(*ask, "--mix", parts).json["hits"]
    assert [(hit["id"], round(hit["score"], 3)) for hit in mixed] == [(hit["id"], round(hit["score"], 3)) for hit in alone]
    assert run(*ask, "--mix", '{"text": "no list"}').code == 2
    wrong = run(*ask, "words", "--filter", '{"color": {"eq": "red"}}')
    assert wrong.code == 1
    assert wrong.err.startswith("error[invalid_filter]: no field 'color'")
    assert b"dog.wav" in run("search", "--collection", "shelf", "words").out
    assert run("search", "--collection", "shelf", "words", "--min-score", "2").err == "no hits\n"


def test_long_files_are_cut_and_the_moment_is_found(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "tones.wav").write_bytes(longmedia.wav())
    (folder / "colors.mp4").write_bytes(longmedia.mp4())
    shutil.copy(EXAMPLES / "dog.wav", folder)
    (tmp_path / "query.wav").write_bytes(longmedia.wav(longmedia.TONES_HZ[3:4], 4))
    index = ("index", folder, "--collection", "long", "--clip-seconds", "10", "--clip-stride", "10")
    assert run(*index).out == b"3 listed = 3 done + 0 skipped + 0 failed\n"
    assert run(*index).out == b"3 listed = 0 done + 3 skipped + 0 failed\n"
    found = run(
        "search", "--collection", "long", "--file", tmp_path / "query.wav", "--modality", "audio", "--among", "audio", "--among", "video",
        "--group-by", "uri", "--format", "json",
    ).json["hits"]  # fmt: skip
    assert (found[0]["id"], found[0]["start"], found[0]["end"]) == ("tones.wav#30-40", 30, 40)
    assert sorted(hit["uri"] for hit in found) == sorted(str(path) for path in folder.iterdir())

    with Store(tmp_path / "data") as store:
        long = store.get("long")
        assert long.state().counts == {"audio": 7, "video": 6}
        assert long.get("dog.wav").start == 0  # shorter than one clip: itself

    assert run("index", folder, "--collection", "long").out == b"3 listed = 3 done + 0 skipped + 0 failed\n"
    with Store(tmp_path / "data") as store:
        long = store.get("long")
        assert sorted(item.id for item in long.page(100, filter={"modality": {"eq": "video"}}).items) == sorted(
            f"colors.mp4#{start}-{min(start + 10, 60)}" for start in range(0, 57, 8)
        )
    assert run(*index[:4], "--clip-seconds", "0").out == b"3 listed = 3 done + 0 skipped + 0 failed\n"
    with Store(tmp_path / "data") as store:
        assert sorted(item.id for item in store.get("long").page(100).items) == ["colors.mp4", "dog.wav", "tones.wav"]


def test_a_file_with_a_clip_that_failed_keeps_the_others_and_is_tried_again(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "hurt.m4a").write_bytes(longmedia.damaged(longmedia.mp4(sound_s=60.0), 0.5))
    for _ in range(2):
        told = run("index", folder, "--collection", "hurt", "--clip-seconds", "5", "--clip-stride", "5", "--rule", "*=audio")
        assert told.out == b"1 listed = 0 done + 0 skipped + 1 failed\n"
        assert "hurt.m4a#25-30" in told.err
    with Store(tmp_path / "data") as store:
        assert 8 <= len(store.get("hurt")) < 12
