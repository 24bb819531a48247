"""Several released packages → the sources of one bundle: one text tower for all, the reference's preprocessing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bindery.bundle import file_digest
from export.checkpoint import TOKENIZER_FILES, weight_files
from export.clip_tokenizer import build_clip_tokenizer
from export.errors import CheckpointError, ExportUsageError, TextTowersDiffer
from export.languagebind import Package, open_package
from export.languagebind_config import KINDS, PROMPTS, text_spec
from export.source import TowerSource

TEXT = "text"
VOCABULARY, MERGES, WHOLE = TOKENIZER_FILES

LICENCE = (
    "The weights' own: the hub's pages of LanguageBind say MIT; they were trained on VIDAL-10M, whose licence is CC-BY-NC-4.0. "
    "Whether that allows your use is yours to decide."
)


def languagebind_sources(checkpoints: Mapping[str, str], tokenizer: str | None = None) -> tuple[list[TowerSource], dict[str, Any]]:
    """Sources (text first) and provenance. ``checkpoints``: modality name → directory or hub id; ``tokenizer``: a directory.

    Raises `CheckpointError`, `TextTowersDiffer`, `ExportUsageError`.
    """
    packages = {modality: open_package(checkpoint) for modality, checkpoint in checkpoints.items()}
    for modality, package in packages.items():
        _check_name(modality, package)
    _check_one_text_tower(list(packages.values()))
    first = next(iter(packages.values()))
    places = [Path(tokenizer)] if tokenizer is not None else [package.directory for package in packages.values()]
    text = TowerSource(TEXT, text_spec(first.config.text, ""), first.text, None, ("{}",), tokenizer_of(places))
    media = [
        TowerSource(modality, package.config.spec, package.vision, package.logit_scale, PROMPTS[package.config.kind])
        for modality, package in packages.items()
    ]
    origin = {"source": "LanguageBind", "checkpoints": {modality: _provenance(package) for modality, package in packages.items()}}
    return [text, *media], origin


def _check_name(modality: str, package: Package) -> None:
    if modality == TEXT:
        raise ExportUsageError("modality name 'text' is taken by the text tower, which comes with every checkpoint")
    if modality in KINDS.values() and modality != package.config.kind:
        raise ExportUsageError(
            f"modality {modality!r} was given {package.name}, which is a {package.config.model_type} ({package.config.kind})"
        )


def _check_one_text_tower(packages: Sequence[Package]) -> None:
    first, *others = packages
    for other in others:
        if other.config.text != first.config.text:
            raise TextTowersDiffer(
                f"{first.name} and {other.name} have text towers of different shapes ({_shape(first)} and {_shape(other)}): "
                "Large and Huge packages make different spaces. Export them as two bundles"
            )
        mine, theirs = first.text_weights(), other.text_weights()
        for name in mine:
            if not torch.equal(mine[name].to(torch.float32), theirs[name].to(torch.float32)):
                raise TextTowersDiffer(
                    f"{first.name} and {other.name} have different text towers ({name} differs): their vectors cannot be compared. "
                    "Export them as two bundles"
                )


def _shape(package: Package) -> str:
    text = package.config.text
    return f"{text.layers} layers of {text.width} to {text.dimension} values"


def tokenizer_of(places: Sequence[Path]) -> str:
    """The text of the `tokenizer.json` made of the first of ``places`` that has CLIP's files. Raises `CheckpointError`."""
    for place in places:
        if (place / VOCABULARY).is_file() and (place / MERGES).is_file():
            return _built(place, place)
        if (place / WHOLE).is_file():
            with tempfile.TemporaryDirectory() as unpacked:
                _unpack(place / WHOLE, Path(unpacked))
                return _built(Path(unpacked), place)
    looked = ", ".join(str(place) for place in places)
    raise CheckpointError(f"no tokenizer: {VOCABULARY} and {MERGES} (or {WHOLE}) in none of {looked}; pass --tokenizer DIR")


def _unpack(tokenizer: Path, target: Path) -> None:
    """Vocabulary and merges of a `tokenizer.json`. Its own normalizer is left behind: cleaning is the spec's business, done before."""
    try:
        model = json.loads(tokenizer.read_bytes())["model"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (target / VOCABULARY).write_text(json.dumps(model["vocab"]), encoding="utf-8")
        (target / MERGES).write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{tokenizer} holds no byte-pair model: {error}") from error


def _built(files: Path, named: Path) -> str:
    try:
        return build_clip_tokenizer(files / VOCABULARY, files / MERGES).to_str()
    except Exception as error:  # the tokenizers library raises bare Exceptions for files that it cannot read
        raise CheckpointError(f"{named}: the tokenizer files are not CLIP's: {error}") from error


def _provenance(package: Package) -> dict[str, Any]:
    lora = package.config.lora
    return {
        "name": package.name,
        "model_type": package.config.model_type,
        "lora_merged": None if lora is None else {"rank": lora.rank, "alpha": lora.alpha},
        "weights_sha256": {path.name: file_digest(path) for path in weight_files(package.directory)},
    }
