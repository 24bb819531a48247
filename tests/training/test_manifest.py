from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.training.toyset import make_pictures
from training.data.manifest import ManifestError, read_manifest, without_licences
from training.data.shards import Files


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,path,captions,label,licence,split,extra\nx,a.png,one | two ,cat,CC0-1.0,train,9\n")
    row = {"id": "x", "path": "a.png", "captions": ["one", "two"], "label": "cat", "licence": "CC0-1.0", "split": "train"}
    (tmp_path / "m.jsonl").write_text("\n" + json.dumps(row) + "\n")
    (from_csv,), (from_json,) = read_manifest(tmp_path / "m.csv"), read_manifest(tmp_path / "m.jsonl")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "m.parquet")
    (from_parquet,) = read_manifest(tmp_path / "m.parquet")
    assert from_csv == from_json == from_parquet
    assert from_csv.captions == ("one", "two")
    assert from_csv.shard is None


def test_one_split_is_read_and_unwanted_licences_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label,licence,split\na,x,GPL-2.0-or-later,train\nb,x,CC0-1.0,train\nc,x,CC0-1.0,val\n")
    items = read_manifest(tmp_path / "m.csv", split="train")
    assert [item.path for item in items] == ["a", "b"]
    assert [item.path for item in without_licences(items, ["GPL*", "*not re-verified*"])] == ["b"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.csv", "path,captions\n,hello\n", "row 1 has no path"),
        ("m.csv", "path,captions,label\na.png, ,\n", "neither captions nor a label"),
        ("m.jsonl", '{"path": "a"', "line 1 is not JSON"),
        ("m.csv", "path,label,weight\na.png,x,much\n", "row 1 has the weight 'much'"),
        ("m.csv", "path,label,weight\na.png,x,-1\n", "row 1 has the weight '-1'"),
        ("m.parquet", "no parquet", r"m\.parquet cannot be read"),
        ("m.jsonl", "[1]", "line 1 is not a JSON object"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=said):
        read_manifest(tmp_path / name)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.csv cannot be read"):
        read_manifest(tmp_path / "gone.csv")


def test_members_are_read_from_the_shard_in_place(tmp_path: Path) -> None:
    item = read_manifest(make_pictures(tmp_path, each=1))[2]
    source = Files().source(item)
    assert source.data is not None
    assert source.data.startswith(b"\x89PNG")
    assert source.name == item.path


def test_a_missing_member_or_shard_is_named(tmp_path: Path) -> None:
    manifest = make_pictures(tmp_path, each=1)
    manifest.write_text(manifest.read_text().replace("red/0.png", "red/9.png"))
    with pytest.raises(ManifestError, match=r"train\.tar has no member 'red/9\.png'"):
        Files().source(read_manifest(manifest)[0])
    (tmp_path / "train.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ManifestError, match="uncompressed tar"):
        Files().source(read_manifest(manifest)[1])


def test_a_caption_may_span_lines_and_rows_have_modality_and_weight(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('path,captions,modality,weight\na.png,"one\nlong caption",xray,0.5\nb.png,two,,\n')
    first, second = read_manifest(tmp_path / "m.csv")
    assert first.captions == ("one\nlong caption",)
    assert (first.modality, first.weight) == ("xray", 0.5)
    assert (second.modality, second.weight) == ("", 1.0)
