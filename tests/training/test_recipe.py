from __future__ import annotations

import json
from pathlib import Path

import pytest

from bindery.bundle import PACKAGED_BUNDLES
from training.recipe import RecipeError, read_recipe
from training.starter.__main__ import MODALITIES, RECIPES

GOOD = """
name = "toy"
text = "text"
[spec]
kind = "image"
[tower]
start = "image"
train = ["head"]
[data]
manifest = "manifest.csv"
[optim]
epochs = 1
batch = 4
rate = 1e-3
"""


def _read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    read_recipe(file)


@pytest.mark.parametrize("name", [*MODALITIES, "hearing"])
def test_the_starters_recipes_are_whole_and_leave_copyleft_media_out(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert recipe.spec.kind == {"hearing": "audio"}.get(name, name)
    assert {"GPL*", "CC-BY-SA*", "CC-Sampling+*", "*not re-verified*"} <= set(recipe.data.skip_licences)
    assert recipe.data.split == "train"


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_committed_starter_was_made_by_the_committed_recipes(modality: str) -> None:
    manifest = json.loads((PACKAGED_BUNDLES / "starter" / "manifest.json").read_text(encoding="utf-8"))
    assert read_recipe(RECIPES / f"{modality}.toml").digest() == manifest["provenance"]["towers"][modality]["recipe_sha256"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("colour = 1\n", "colour"),
        ("[optim.extra]\nx = 1\n", r"optim\.extra"),
        ("[features]\nviews = 0\n", r"features\.views"),
        ("[loss]\ncalibrate = true\n", "held_out"),
        ("choose_prompts = true\n", r"choose_prompts needs data\.held_out"),
        ('prompts = ["{}", "a {}", "{}"]\n', "twice"),
    ],
)
def test_an_unknown_or_impossible_key_is_named(tmp_path: Path, line: str, said: str) -> None:
    text = GOOD + line if line.startswith("[") else line + GOOD
    with pytest.raises(RecipeError, match=said):
        _read(tmp_path, text)


def test_features_are_for_heads_only(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="features"):
        _read(tmp_path, GOOD.replace('["head"]', '["trunk", "head"]') + "[features]\n")


def test_a_tower_must_come_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="config, start"):
        _read(tmp_path, GOOD.replace('start = "image"\n', ""))


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.toml cannot be read"):
        _read(tmp_path, "name = ")


def test_the_digest_is_over_the_meaning_not_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text("# a comment\n" + GOOD.replace("1e-3", "0.001"))
    (tmp_path / "c.toml").write_text(GOOD.replace("1e-3", "0.002"))
    a, b, c = (read_recipe(tmp_path / f"{name}.toml").digest() for name in "abc")
    assert a == b
    assert a != c
