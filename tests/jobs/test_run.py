"""Jobs through the engine in this process."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bindery.collections import Store
from bindery.errors import InvalidParameter, TooManyFailures
from bindery.jobs.ledger import Ledger
from bindery.jobs.sources import spool
from tests import longmedia
from tests.jobs.conftest import Indexer, contents, generated, picture, put
from tests.jobs.test_webdataset import tar_of
from tests.media.clips import png_header, tone
from tests.media.clips import sound as encoded_sound


def test_a_second_run_encodes_nothing_and_a_changed_file_alone_is_encoded(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 12)
    first = run(folder)
    assert (str(first), run.encoded) == ("12 listed = 12 done + 0 skipped + 0 failed", 12)
    again = run(folder)
    assert (str(again), run.encoded) == ("12 listed = 0 done + 12 skipped + 0 failed", 0)
    before = contents(run.data)["part0/0000.png"]
    (folder / "part0/0000.png").write_bytes(picture(np.full((24, 24, 3), 200, dtype=np.uint8)))
    (folder / "part0/0006.png").touch()  # a new time, the same bytes
    assert (str(run(folder)), run.encoded) == ("12 listed = 1 done + 11 skipped + 0 failed", 1)
    assert contents(run.data)["part0/0000.png"] != before


def test_other_metadata_is_stored_without_encoding(run: Indexer, tmp_path: Path) -> None:
    generated(tmp_path / "media", 4)
    (tmp_path / "media" / "long.wav").write_bytes(longmedia.wav())
    lines = ["uri,year", "part0/0000.png,2023", "part1/0001.wav,2024", "long.wav,2025"]
    (tmp_path / "media" / "list.csv").write_text("\n".join(lines))
    first = run(tmp_path / "media/list.csv", fields={"year": "integer"})
    assert (first.done, first.failed, run.encoded) == (3, 0, 10)
    stored = contents(run.data)
    (tmp_path / "media" / "list.csv").write_text("\n".join(lines).replace("2025", "2026"))
    again = run(tmp_path / "media/list.csv")
    assert (again.done, again.skipped, again.copied, run.encoded) == (1, 2, 1, 0)
    assert contents(run.data) == stored
    with Store(run.data) as store:
        years = {item.id: item.metadata["year"] for item in store.get("c").page(100).items}
    assert years == {id: 2026 if id.startswith("long") else 2023 if "png" in id else 2024 for id in stored}


def test_what_a_manifest_says_wrongly_fails_by_itself(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 4)
    rows = ["uri,modality,year", "part0/0000.png,smell,1", "part1/0001.wav,,old", "gone.wav,,1", ",,", "part2/0002.png,,5"]
    (folder / "list.csv").write_text("\n".join(rows))
    report = run(folder / "list.csv", fields={"year": "integer"})
    assert str(report) == "5 listed = 1 done + 0 skipped + 4 failed"
    assert {code: found.count for code, found in report.errors.items()} == {
        "unknown_modality": 1, "invalid_parameter": 2, "unreadable_media": 1,
    }  # fmt: skip


def test_an_unreadable_row_keeps_prune_from_what_only_seems_gone(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 4)
    rows = ["uri", "part0/0000.png", "part1/0001.wav", "part2/0002.png", "part0/0003.wav"]
    manifest = folder / "list.csv"
    manifest.write_text("\n".join(rows))
    run(manifest)
    manifest.write_text("\n".join(rows[:4]) + '\n"part0/0003.wav,x,y"z,5,6')
    with pytest.raises(InvalidParameter, match="1 entries of it cannot be read"):
        run(manifest, prune=True)
    manifest.write_text("\n".join(rows[:4]))
    assert run(manifest, prune=True).pruned == 1


def test_a_name_that_is_no_utf8_fails_by_itself(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 2)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(np.zeros((8, 8, 3), dtype=np.uint8)))
    report = run(folder)
    assert (str(report), report.errors["invalid_parameter"].examples) == ("3 listed = 2 done + 0 skipped + 1 failed", ["caf\\udce9.png"])


def test_by_scenes_clips_are_others_and_the_sound_of_a_file_has_its_pictures(run: Indexer, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    colors = longmedia.mp4(longmedia.COLORS[:3], 6, sound_s=18.0)
    (folder / "colors.mp4").write_bytes(colors)
    (folder / "colors-sound.mp4").write_bytes(colors)
    (folder / "tone.wav").write_bytes(longmedia.wav(seconds_each=2.0))
    (folder / "junk.mp4").write_bytes(b"no video")
    sounds = {"*-sound.mp4": "audio"}
    scenes = run(folder, clip_by="scenes", rules=sounds)
    assert (scenes.done, scenes.failed) == (3, 1)
    grid = {"#0-6", "#6-12", "#12-18"}
    wanted = {name + span for name in ("colors.mp4", "colors-sound.mp4") for span in grid} | {"tone.wav#0-6", "tone.wav#6-12"}
    assert set(contents(run.data)) == wanted
    again = run(folder, clip_by="scenes", rules=sounds)
    assert (again.skipped, again.failed, run.encoded) == (3, 1, 0)
    assert run(folder, clip_by="scenes", clip_min_seconds=7, rules=sounds).done == 3
    assert {id for id in contents(run.data) if id.startswith("colors.mp4")} == {"colors.mp4#0-9", "colors.mp4#9-18"}
    assert run(folder, rules=sounds).done == 3
    assert "colors.mp4#8-18" in contents(run.data)


def test_renamed_files_and_duplicates_are_copied_with_their_clips(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 6)
    (folder / "long.wav").write_bytes(longmedia.wav())
    shutil.copy(folder / "part0/0000.png", folder / "twin.png")
    first = run(folder)
    assert (first.done, first.copied) == (8, 1)
    stored = contents(run.data)
    assert stored["twin.png"][2:] == stored["part0/0000.png"][2:]
    (folder / "part1").rename(folder / "elsewhere")
    (folder / "long.wav").rename(folder / "longer.wav")
    report = run(folder, prune=True)
    assert (report.done, report.copied, report.skipped, report.pruned, run.encoded) == (3, 3, 5, 3, 0)
    after = contents(run.data)
    clips = [id for id in after if id.startswith("longer.wav#")]
    assert len(clips) > 3
    for id in clips:
        assert after[id][1] == str(folder / "longer.wav")
        assert after[id][2:] == stored[id.replace("longer", "long")][2:]
    assert not [id for id in after if id.startswith(("part1/", "long.wav"))]


def test_prune_is_refused_when_the_source_seems_to_be_gone(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 8)
    run(folder)
    for part in ("part0", "part1"):
        shutil.rmtree(folder / part)
    with pytest.raises(InvalidParameter, match="prune would remove 6 of 8"):
        run(folder, prune=True)
    assert len(contents(run.data)) == 8
    assert run(folder, prune=True, force=True).pruned == 6
    assert len(contents(run.data)) == 2


def test_bad_files_never_stop_the_others_and_totals_reconcile(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 60)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "part0/0000.png").read_bytes()[:60])
    (folder / "sound.png").write_bytes((folder / "part1/0001.wav").read_bytes())
    (folder / "no-utf8.txt").write_bytes(b"caf\xe9")
    (folder / "other.zip").write_bytes(b"PK")
    report = run(folder)
    assert (str(report), report.left_out) == ("64 listed = 60 done + 0 skipped + 4 failed", 1)
    assert sum(found.count for found in report.errors.values()) == 4
    place = run.data / "jobs" / report.job
    lines = [json.loads(line) for line in (place / "errors.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["cut.png", "empty.wav", "no-utf8.txt", "sound.png"]
    assert json.loads((place / "report.json").read_text())["failed"] == 4

    (folder / "no-utf8.txt").write_text("coffee")
    assert str(run(folder, retry_failed=True)) == "4 listed = 1 done + 0 skipped + 3 failed"


def test_too_many_failures_give_the_job_up_and_keep_what_is_done(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 20)
    for number in range(20):
        (folder / f"bad{number}.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(TooManyFailures):
        run(folder, max_error_rate=0.1)
    ledger = Ledger(run.data)
    (job,) = ledger.jobs()
    ledger.close()
    assert job.state == "failed"
    assert "too_many_failures" in (job.detail or "")


def test_one_file_in_twenty_is_broken_in_every_way_and_the_rest_goes_in(run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 95)
    (folder / "bomb.png").write_bytes(png_header(100_000, 100_000))
    (folder / "sound-only.mp4").write_bytes(encoded_sound("aac", "mp4", tone(48_000, 1.0), 48_000))
    (folder / "nothing.png").write_bytes(b"")
    (folder / "cut.wav").write_bytes((folder / "part1/0001.wav").read_bytes()[:40])
    (folder / "picture.wav").write_bytes((folder / "part0/0000.png").read_bytes())
    report = run(folder)
    assert (str(report), report.state) == ("100 listed = 95 done + 0 skipped + 5 failed", "done")
    assert {code: found.examples for code, found in sorted(report.errors.items())} == {
        "empty_media": ["nothing.png"],
        "no_video_stream": ["sound-only.mp4"],
        "too_many_pixels": ["bomb.png"],
        "unreadable_media": ["cut.wav"],
        "unsupported_media": ["picture.wav"],
    }
    assert len(contents(run.data)) == 95
    assert str(run(folder)) == "100 listed = 0 done + 95 skipped + 5 failed"


def test_a_bucket_goes_in_and_again_only_where_it_changed(run: Indexer, s3: object, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 6)
    objects = {f"job/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.*")}
    put(s3, objects)
    assert (str(run("s3://archive/job")), run.encoded) == ("6 listed = 6 done + 0 skipped + 0 failed", 6)
    stored = contents(run.data)
    assert stored["part0/0000.png"][1] == "s3://archive/job/part0/0000.png"
    put(s3, {"job/new.txt": b"new", "job/part0/0000.png": objects["job/part2/0002.png"]})
    again = run("s3://archive/job")
    assert (str(again), again.copied, run.encoded) == ("7 listed = 2 done + 5 skipped + 0 failed", 1, 1)


def test_tars_hold_what_the_folder_did_also_through_spooled_files(
    run: Indexer, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 100)  # so that the decoders are handed temporary files
    folder = generated(tmp_path / "media", 6)
    (folder / "part1/long.wav").write_bytes(longmedia.wav())
    tar_of(tmp_path / "all.tar", {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))})
    assert str(run(tmp_path / "all.tar")) == "7 listed = 7 done + 0 skipped + 0 failed"
    from_folder = Indexer(toy, tmp_path / "other")
    from_folder(folder)
    assert {id.removeprefix("all.tar/"): row[2:] for id, row in contents(run.data).items()} == {
        id: row[2:] for id, row in contents(from_folder.data).items()
    }
    assert str(run(tmp_path / "all.tar")) == "7 listed = 0 done + 7 skipped + 0 failed"
