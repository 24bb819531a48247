from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from bindery.bundle import open_bundle
from export.cli import app
from export.languagebind_bundle import languagebind_sources
from tests.export.packages import PREPROCESS, TOKEN_TABLE, Parts, write_package
from tests.export.towers import save_packages
from training.recipe import TowerRecipe
from training.start import choose_trained, start_tower
from training.text import PackageText, frozen_text
from training.towers.package import load_tower


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    packages = save_packages(tmp_path_factory.mktemp("towers"))
    return [argument for modality, path in packages.items() for argument in ("--tower", f"{modality}={path}")]


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    (folder / "one.jpg").write_bytes((PREPROCESS / "media" / "small_61x45.jpg").read_bytes())
    return folder


def test_tower_packages_become_a_bundle(tmp_path: Path, towers: list[str]) -> None:
    (tmp_path / "card.md").write_text("# Ours\n")
    (tmp_path / "provenance.json").write_text('{"data": "made up"}')
    (tmp_path / "texts.txt").write_text("word1 word2\nword3\n\n")
    out = tmp_path / "bundle"
    result = run(
        "towers", *towers, "--name", "starter", "--version", "2.1", "--licence", "CC0-1.0", "--out", out, "--max-batch", "2",
        "--weights", "text=int8", "--share-weights", "--policy", "image.exif=apply",
        "--card", tmp_path / "card.md", "--provenance", tmp_path / "provenance.json",
        "--samples", f"text={tmp_path / 'texts.txt'}", "--samples", f"image={_pictures(tmp_path / 'pictures')}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    manifest = open_bundle(out).manifest
    assert json.loads(result.stdout)["space"] == manifest.space
    assert (manifest.name, manifest.version, manifest.licence) == ("starter", "2.1", "CC0-1.0")
    assert manifest.provenance["data"] == "made up"
    assert manifest.provenance["towers"]["image"] == {"seed": 1}
    assert manifest.provenance["policies"] == ["image.exif=apply"]
    assert manifest.modalities["image"].spec.exif == "apply"  # type: ignore[union-attr]
    assert manifest.modalities["text"].artefacts[0].weights == "int8"
    assert manifest.modalities["depth"].artefacts[0].weights == "float32"
    assert manifest.modalities["depth"].logit_scale == 20.0
    measured = {name: modality.artefacts[0].parity.samples for name, modality in manifest.modalities.items()}
    assert measured == {"text": 3, "image": 1, "depth": 2}
    assert (out / "MODEL_CARD.md").read_text() == "# Ours\n"


def test_parity_below_the_floor_exits_with_1_and_leaves_nothing(tmp_path: Path, towers: list[str]) -> None:
    result = run("towers", *towers, "--name", "x", "--licence", "x", "--out", tmp_path / "bundle", "--max-batch", "2", "--max-abs", "0")
    assert result.exit_code == 1
    assert "differs from the tower" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--weights", "text=int4"], "use one of float32, float16, int8"),
        (["--weights", "audio=int8"], "--weights names modality 'audio'"),
        (["--max-batch", "none"], "use 1 to 4096"),
        (["--policy", "image.size"], "not MODALITY.FIELD=VALUE"),
        (["--policy", "text.context_length=99"], "the tower takes 77 tokens at most"),
        (["--samples", "image=elsewhere"], "a folder of files for media"),
        (["--tower", "image=elsewhere"], "names 'image' twice"),
        (["--tower", "image"], "is not MODALITY=VALUE"),
    ],
)
def test_wrong_usage_exits_with_2_and_leaves_nothing(tmp_path: Path, towers: list[str], extra: list[str], said: str) -> None:
    result = run("towers", *towers, "--name", "x", "--licence", "x", "--out", tmp_path / "bundle", *extra)
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_exits_with_1_and_names_the_file(tmp_path: Path) -> None:
    result = run("towers", "--tower", f"text={tmp_path / 'gone'}", "--name", "x", "--licence", "x", "--out", tmp_path / "bundle")
    assert result.exit_code == 1
    assert "gone/tower.json" in result.stderr


def _other_text(parts: Parts) -> None:
    parts.tensors[TOKEN_TABLE][320] += 1


def _languagebind(tmp_path: Path, *arguments: str | Path) -> Result:
    return run("languagebind", *arguments, "--out", tmp_path / "bundle")


def test_packages_with_different_text_weights_are_refused_by_name(tmp_path: Path, tokenizer: Path) -> None:
    write_package(tmp_path / "first", "Image")
    write_package(tmp_path / "second", "Depth", _other_text)
    arguments = ["--checkpoint", f"image={tmp_path / 'first'}", "--checkpoint", f"depth={tmp_path / 'second'}", "--tokenizer", tokenizer]
    result = _languagebind(tmp_path, *arguments)
    assert result.exit_code == 1
    assert "first and second have different text towers (token_embedding.weight differs)" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_large_and_huge_packages_are_refused_together(tmp_path: Path, tokenizer: Path) -> None:
    write_package(tmp_path / "large", "Image")
    write_package(tmp_path / "huge", "Video_Huge_V1.5_FT")
    result = _languagebind(
        tmp_path, "--checkpoint", f"image={tmp_path / 'large'}", "--checkpoint", f"video={tmp_path / 'huge'}", "--tokenizer", tokenizer
    )
    assert result.exit_code == 1
    assert "Large and Huge packages make different spaces" in result.stderr


def test_a_package_under_the_wrong_name_is_wrong_usage(tmp_path: Path) -> None:
    write_package(tmp_path / "package", "Depth")
    result = _languagebind(tmp_path, "--checkpoint", f"audio={tmp_path / 'package'}")
    assert result.exit_code == 2
    assert "LanguageBindDepth" in result.stderr


def test_packages_without_tokenizer_files_ask_for_them(tmp_path: Path) -> None:
    write_package(tmp_path / "package", "Image")
    result = _languagebind(tmp_path, "--checkpoint", f"image={tmp_path / 'package'}")
    assert result.exit_code == 1
    assert "pass --tokenizer DIR" in result.stderr


def test_junk_for_a_tokenizer_is_named(tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", "Image")
    (package / "vocab.json").write_text("[]")
    (package / "merges.txt").write_text("")
    result = _languagebind(tmp_path, "--checkpoint", f"image={package}")
    assert result.exit_code == 1
    assert f"{package}: the tokenizer files are not CLIP's" in result.stderr


def test_a_whole_tokenizer_file_serves_as_well_as_its_parts(tmp_path: Path, tokenizer: Path) -> None:
    from export.clip_tokenizer import build_clip_tokenizer

    package = write_package(tmp_path / "package", "Image")
    built = build_clip_tokenizer(tokenizer / "vocab.json", tokenizer / "merges.txt")
    built.save(str(package / "tokenizer.json"))
    (text, _), _ = languagebind_sources({"image": str(package)})
    assert json.loads(text.tokenizer or "") == json.loads(built.to_str())


@pytest.mark.parametrize("command", ["languagebind", "towers", "add", "unpack"])
def test_help_shows_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"bindery-export {command} --" in result.stdout


def test_the_bundle_says_where_its_weights_come_from(large_bundle: Path) -> None:
    manifest = open_bundle(large_bundle).manifest
    depth = manifest.provenance["checkpoints"]["depth"]
    assert depth["lora_merged"] == {"rank": 2, "alpha": 16.0}
    assert depth["weights_sha256"].keys() == {"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"}
    assert "CC-BY-NC" in manifest.licence
    assert str(large_bundle.parent) not in manifest.model_dump_json()
    torch.testing.assert_close(manifest.modalities["image"].logit_scale, 100.0, rtol=1e-5, atol=0)


def test_released_packages_unpack_into_towers_that_training_starts_from(tmp_path: Path, tokenizer: Path) -> None:
    package = write_package(tmp_path / "package", "Depth")  # with LoRA
    arguments = ["unpack", "--checkpoint", f"depth={package}", "--tokenizer", tokenizer, "--out", tmp_path / "towers"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    sources, _ = languagebind_sources({"depth": str(package)}, str(tokenizer))
    for source in sources:
        unpacked = load_tower(tmp_path / "towers" / source.modality)
        weights, expected = unpacked.module().state_dict(), source.tower().state_dict()
        assert weights.keys() == expected.keys()  # merged: no trace of adapters
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
        assert unpacked.logit_scale == source.logit_scale
    assert isinstance(frozen_text("text", tmp_path / "towers"), PackageText)
    tower = start_tower(TowerRecipe(start="depth", train="lora"), tmp_path / "towers")
    assert "layers.0.attention.q.lora_a" in choose_trained(tower, TowerRecipe(start="depth", train="lora"))
    again = run(*arguments)
    assert again.exit_code == 2
    assert "exists" in again.output
