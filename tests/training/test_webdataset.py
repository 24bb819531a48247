from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bindery.spec import ImageSpec
from tests.training.test_trainer import _recipe, places  # noqa: F401  (a fixture)
from tests.training.toyset import COLOURS
from training.assembly import Places
from training.data.batches import Decoder
from training.data.manifest import ManifestError
from training.data.webdataset import read_shards
from training.recipe import RecipeError
from training.trainer import train


def _shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for ending, data in files.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _png(colour: tuple[int, int, int], seed: int) -> bytes:
    pixels = np.clip(np.array(colour) + np.random.default_rng(seed).integers(-25, 26, size=(16, 16, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_samples_are_items_with_captions_labels_and_columns(tmp_path: Path) -> None:
    picture = _png((9, 9, 9), 0)
    _shard(tmp_path / "s-00.tar", {"a/000": {"png": picture, "txt": b"a caption\n"}})
    more = {"captions": ["two", "three"], "label": "x", "split": "val", "weight": 2, "licence": "CC0"}
    _shard(
        tmp_path / "s-01.tar",
        {
            "001": {"json": json.dumps(more).encode(), "png": picture},
            "002": {"png": picture, "cls": b"7", "json": b'{"caption": "four"}'},
        },
    )
    first, second, third = read_shards(tmp_path / "s-{00..01}.tar")
    assert (first.id, first.shard, first.path, first.captions, first.split) == ("a/000", "s-00.tar", "a/000.png", ("a caption",), "")
    assert (second.captions, second.label, second.split, second.weight, second.licence) == (("two", "three"), "x", "val", 2.0, "CC0")
    assert (third.captions, third.label) == (("four",), "7")
    assert read_shards(tmp_path / "s-*.tar") == [first, second, third]
    assert Decoder([first], ImageSpec(size=16)).tensors(0) is not None


def test_the_medium_of_a_sample_with_several_is_named(tmp_path: Path) -> None:
    _shard(tmp_path / "s.tar", {"0": {"png": b"1", "depth.png": b"2", "txt": b"words"}})
    with pytest.raises(ManifestError, match=r"several media \(png, depth\.png\)"):
        read_shards(tmp_path / "s.tar")
    assert read_shards(tmp_path / "s.tar", member="depth.png")[0].path == "0.depth.png"
    with pytest.raises(ManifestError, match=r"sample 0 has no \.jpg"):
        read_shards(tmp_path / "s.tar", member="jpg")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"txt": b"words"}, "sample 0 has no medium"),
        ({"png": b"1"}, "neither captions nor a label"),
        ({"png": b"1", "json": b"{"}, "no JSON in"),
        ({"png": b"1", "json": b"[]"}, "no JSON object"),
        ({"png": b"1", "txt": b"\xff"}, "not UTF-8"),
    ],
)
def test_a_broken_sample_is_named(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    _shard(tmp_path / "s.tar", {"0": files})
    with pytest.raises(ManifestError, match=said):
        read_shards(tmp_path / "s.tar")


def test_shards_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="names no file"):
        read_shards(tmp_path / "s-*.tar")
    with pytest.raises(ManifestError, match=r"s-1\.tar cannot be read"):
        read_shards(tmp_path / "s-{1..2}.tar")


def test_a_tower_learns_from_shards(places: Places) -> None:  # noqa: F811
    for shard in range(2):
        samples = {
            f"{shard}{number:03}": {"png": _png(rgb, 100 * shard + number), "txt": f"a picture of {colour} paint".encode()}
            for number, (colour, rgb) in enumerate([*COLOURS.items()] * 5)
        }
        _shard(places.media / f"train-{shard}.tar", samples | {f"{shard}bad": {"png": b"no picture", "txt": b"words"}})
    data = {"manifest": "train-{0..1}.tar"}
    optim = {"epochs": 8, "batch": 20, "rate": 3e-3}
    trained = train(_recipe({"start": "vit", "train": "full"}, data=data, optim=optim, loss={}), places)
    assert trained.items == 40
    assert trained.skipped.keys() == {"0bad", "1bad"}
    assert trained.losses[-1] < trained.losses[0] - 0.1
    with pytest.raises(RecipeError, match=r"no item of split 'train' and modality 'xray'"):
        train(_recipe({"start": "vit", "train": "full"}, data=data | {"modality": "xray"}, optim=optim, loss={}), places)
